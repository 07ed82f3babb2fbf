"""Timing of models side by side on one machine."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..detector import Detector
from ..images.decode import read_image
from ..inference.backend import Measurable

WARMUP = 3
"""Iterations that are not counted."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class BenchmarkCase:
    """A model and a batch size to time it with."""

    detector: Detector
    batch_size: int


@dataclass(frozen=True)
class Times:
    """Statistics of repeated runs.

    Attributes:
        median: in seconds.
        p95: 95th percentile, in seconds.
    """

    median: float
    p95: float


@dataclass(frozen=True)
class Speed:
    """Speed of one case.

    Attributes:
        network: from resized pixels to detections, for a batch.
        whole: from the file to detections, for a batch.
        gflops: 10⁹ floating-point operations a second of the network, or None if unknown; a multiply-add is two.
    """

    network: Times
    whole: Times
    gflops: float | None


def measure(
    cases: Sequence[BenchmarkCase], path: Path, iterations: int, on_iteration: Callable[[int], None] = lambda _: None
) -> list[Speed]:
    """Time cases in turn; see `time_in_turn`.

    Args:
        cases: to time.
        path: of the image.
        iterations: number of times to time each case.
        on_iteration: called with the number of iterations done.

    Raises:
        ImageError: the image cannot be decoded.
        DeviceMemoryError: a device's memory is too small.
    """
    image = read_image(path).image
    size = (image.height, image.width)
    runs: dict[tuple[int, str], Callable[[], object]] = {}
    shapes = []
    for index, case in enumerate(cases):
        pixels, count = case.detector.resized(image), case.batch_size
        shapes.append(pixels.shape[:2])
        runs[index, "network"] = partial(case.detector.backend.run, [pixels] * count, [size] * count)
        runs[index, "whole"] = partial(case.detector.predict, [path] * count, batch_size=count)
    seconds = time_in_turn(runs, iterations, warmup=WARMUP, on_iteration=on_iteration)
    speeds = []
    for index, (case, (height, width)) in enumerate(zip(cases, shapes, strict=True)):
        network, whole = (_statistics(seconds[index, part]) for part in ("network", "whole"))
        backend = case.detector.backend
        work = backend.gflops(height, width) if isinstance(backend, Measurable) else None
        speeds.append(Speed(network, whole, None if work is None else work * case.batch_size / network.median))
    return speeds


def time_in_turn(
    runs: Mapping[Key, Callable[[], object]],
    iterations: int,
    *,
    warmup: int,
    on_iteration: Callable[[int], None] = lambda _: None,
) -> dict[Key, list[float]]:
    """Time functions in turn, so that other load on the machine affects all of them alike.

    Each is called twice per iteration, and the second call counts: during the first, the threads of whatever ran before
    are still spinning.

    Returns:
        Seconds of each iteration after the warmup.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for iteration in range(1 - warmup, iterations + 1):
        for key, run in runs.items():
            run()
            began = time.perf_counter()
            run()
            if iteration > 0:
                seconds[key].append(time.perf_counter() - began)
        if iteration > 0:
            on_iteration(iteration)
    return seconds


def _statistics(seconds: Iterable[float]) -> Times:
    ordered = sorted(seconds)
    return Times(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])
