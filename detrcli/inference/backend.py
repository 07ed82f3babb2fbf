"""What runs a network: one small protocol."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class RawDetections(NamedTuple):
    """A network's answers for one image, in no order, not yet clipped.

    Attributes:
        boxes: (K, 4) float32 as x1, y1, x2, y2 in pixels of the image before it was resized.
        scores: (K,) float32.
        labels: (K,) int64.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Backend(Protocol):
    """Runs a network on images of one shape."""

    description: str
    """Device and precision, for people."""
    kind: str
    """Of the device: cpu, cuda, mps or tensorrt."""
    precision: str
    """What most is computed in: fp32, fp16 or bf16."""
    batch_size: int
    """How many images at once make good use of the device, as far as that is known beforehand."""
    grows: bool
    """Whether more images at once may be faster."""
    at_once: int
    """How many threads that run batches at once are faster than one, while the backend is shared."""

    def run(self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """Answer for each image.

        Args:
            pixels: (H, W, 3) uint8 each, all of one shape.
            sizes: height and width of each image before it was resized.
        """

    def shared(self) -> AbstractContextManager[None]:
        """While this lasts, `at_once` threads run batches, each with its share of the device."""


@runtime_checkable
class Measurable(Protocol):
    """A backend that knows how much work it does, and how much its device could do."""

    def gflops(self, height: int, width: int) -> float | None:
        """Work of the network for one image of a size, in 10⁹ operations, a product and a sum as two, if known."""

    def product_gflops(self) -> float | None:
        """10⁹ operations a second of a product of large matrices in the same place and precision, if it can be told."""

    def processor(self) -> str:
        """What computes, as its maker calls it."""


@dataclass(frozen=True)
class MatmulProbe:
    """A product of square matrices, by which a device is judged.

    Attributes:
        rows: of each matrix, and columns.
        times: how often it is done before the device is waited for.
    """

    rows: int
    times: int

    def rate(self, run: Callable[[], object]) -> float:
        """10⁹ operations a second of what does it so often, and waits: the best of some."""
        seconds = []
        for _ in range(8):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return 2 * self.rows**3 * self.times / min(seconds) / 1e9


ON_CPU, IN_FP16_ON_CPU, ON_GPU = MatmulProbe(2048, 1), MatmulProbe(512, 1), MatmulProbe(4096, 16)
