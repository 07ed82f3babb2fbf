"""Protocol of what runs a network, one implementation per engine."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..images.resize import Pixels


class RawDetections(NamedTuple):
    """A network's detections in one image, unordered, unfiltered and not clipped to the image.

    Attributes:
        boxes: (K, 4) float32 as x1, y1, x2, y2 in pixels of the image before it was resized.
        scores: (K,) float32.
        labels: (K,) int64.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Backend(Protocol):
    """Runs a network on batches of images of one shape."""

    description: str
    """Device, engine and precision, for people."""
    engine: str
    """PyTorch, ONNX Runtime or OpenVINO."""
    device_type: str
    """cpu, cuda, mps, tensorrt or openvino."""
    precision: str
    """fp32, fp16 or bf16, in which most is computed."""
    batch_size: int
    """Default batch size for the device."""
    grows: bool
    """Whether larger batches may be faster."""
    concurrency: int
    """Number of threads that should run batches at the same time, within `shared`."""

    def run(
        self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], *, settled: bool = True
    ) -> list[RawDetections]:
        """Detect objects in each image.

        Args:
            pixels: resized images, all of one shape and type.
            sizes: height and width of each image before it was resized.
            settled: whether batches of this size are likely to follow, so that preparing for them pays.
        """

    def shared(self) -> AbstractContextManager[None]:
        """Divide the device between `concurrency` threads as long as the block lasts."""


@runtime_checkable
class Measurable(Protocol):
    """A backend that knows how much work its network is, and how fast its device is."""

    def gflops(self, height: int, width: int) -> float | None:
        """10⁹ floating-point operations of the network for one image, or None if unknown; a multiply-add is two."""

    def product_gflops(self) -> float | None:
        """10⁹ operations a second of a large matrix product on the device, in its precision, or None if unknown."""

    def processor(self) -> str:
        """Name of the CPU or GPU."""


@dataclass(frozen=True)
class MatmulProbe:
    """A product of square matrices by which a device's speed is measured.

    Attributes:
        side: rows and columns of each matrix.
        repeats: products per measurement.
    """

    side: int
    repeats: int

    def gflops(self, run: Callable[[], object]) -> float:
        """10⁹ operations a second of `run`, which does all repeats and waits for them; the best of eight calls."""
        seconds = []
        for _ in range(8):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return 2 * self.side**3 * self.repeats / min(seconds) / 1e9


CPU_PROBE, CPU_FP16_PROBE, GPU_PROBE = MatmulProbe(2048, 1), MatmulProbe(512, 1), MatmulProbe(4096, 16)
