"""How fast models are, side by side on one machine."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..detector import Detector
from ..images.decode import read_image
from ..inference.backend import Measurable

WARM_UP = 3
"""Rounds that do not count."""


@dataclass(frozen=True)
class BenchmarkCase:
    """A model in one of the ways to run it.

    Attributes:
        detector: the model.
        batch: images at once.
    """

    detector: Detector
    batch: int


@dataclass(frozen=True)
class Times:
    """How long something took.

    Attributes:
        median: seconds.
        p95: seconds that 95 of 100 times did not pass.
    """

    median: float
    p95: float


@dataclass(frozen=True)
class Speed:
    """How fast one contender is.

    Attributes:
        network: from resized pixels to detections, for a batch.
        whole: from the file to detections, for a batch.
        gflops: 10⁹ operations a second that the network did, a product and a sum as two, or None if that is unknown.
    """

    network: Times
    whole: Times
    gflops: float | None


def measure(
    contenders: Sequence[BenchmarkCase], path: Path, rounds: int, on_round: Callable[[int], None] = lambda _: None
) -> list[Speed]:
    """Time contenders in turn, so that whatever else the machine does hits all alike, each when it has just run.

    Args:
        contenders: what to time.
        path: the file that they look at.
        rounds: how often; each takes two runs, of which the second counts.
        on_round: is told after each round how many are done.

    Raises:
        ImageError: the image cannot be read.
        DeviceError: a device's memory is too small.
    """
    image = read_image(path).image
    things: dict[tuple[int, str], Callable[[], object]] = {}
    sizes = []
    for place, one in enumerate(contenders):
        pixels = one.detector.resized(image)
        sizes.append(pixels.shape[:2])
        size = (image.height, image.width)
        things[place, "network"] = partial(one.detector.backend.run, [pixels] * one.batch, [size] * one.batch)
        things[place, "whole"] = partial(one.detector.predict, [path] * one.batch, batch_size=one.batch)
    taken = _in_turn(things, rounds, on_round)
    speeds = []
    for place, (one, (height, width)) in enumerate(zip(contenders, sizes, strict=True)):
        network, whole = (_times(taken[place, part]) for part in ("network", "whole"))
        backend = one.detector.backend
        work = backend.gflops(height, width) if isinstance(backend, Measurable) else None
        speeds.append(Speed(network, whole, None if work is None else work * one.batch / network.median))
    return speeds


def _in_turn(
    things: Mapping[tuple[int, str], Callable[[], object]], rounds: int, on_round: Callable[[int], None]
) -> dict[tuple[int, str], list[float]]:
    taken: dict[tuple[int, str], list[float]] = {key: [] for key in things}
    for turn in range(WARM_UP + rounds):
        for key, run in things.items():
            run()  # the threads of what ran before wait for more with all their might, which must not count here
            began = time.perf_counter()
            run()
            if turn >= WARM_UP:
                taken[key].append(time.perf_counter() - began)
        if turn >= WARM_UP:
            on_round(turn - WARM_UP + 1)
    return taken


def _times(seconds: Iterable[float]) -> Times:
    ordered = sorted(seconds)
    return Times(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])
