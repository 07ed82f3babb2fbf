"""What runs a network: one small protocol."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Answers(NamedTuple):
    """A network's answers for one picture, in no order, not yet clipped.

    Attributes:
        boxes: (K, 4) float32 as x1, y1, x2, y2 in pixels of the picture before it was resized.
        scores: (K,) float32.
        labels: (K,) int64.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Backend(Protocol):
    """Runs a network on pictures of one shape."""

    description: str
    """Device and precision, for people."""
    batch_size: int
    """How many pictures at once make good use of the device."""

    def run(self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]) -> list[Answers]:
        """Answer for each picture.

        Args:
            pixels: (H, W, 3) uint8 each, all of one shape.
            sizes: height and width of each picture before it was resized.
        """
