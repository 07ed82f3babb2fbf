"""From a picture to the size that a network takes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ResizeRule(Protocol):
    """How large a network wants its pictures."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to resize a picture of this width and height to."""


@dataclass(frozen=True)
class ShortestEdge:
    """Aspect kept: the shorter side becomes `shortest`, unless the longer would pass `longest` (DETR, appendix A.4).

    Then the shorter side is rounded first, as in the original, so that the longer one of a long picture may pass
    `longest` by a few pixels yet.
    """

    shortest: int = 800
    longest: int | None = 1333

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing; a side never falls below one pixel."""
        short, long = sorted((width, height))
        target = self.shortest
        if self.longest is not None and long / short * target > self.longest:
            target = max(1, round(self.longest * short / long))
        other = int(target * long / short)
        if self.longest is not None and target == 1:
            other = min(other, self.longest)
        return (target, other) if width < height else (other, target)


def shortest_edge(shortest: int) -> ShortestEdge:
    """DETR's rule for another size: the longer side may be as much longer as in the paper."""
    return ShortestEdge(shortest, shortest * 5 // 3)


@dataclass(frozen=True)
class Exactly:
    """One size for all, aspect not kept."""

    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing."""
        return self.width, self.height

    def __str__(self) -> str:
        return f"{self.width} × {self.height}"


@dataclass(frozen=True)
class Within:
    """Aspect kept: as large as fits a frame."""

    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing; a side never falls below one pixel."""
        scale = min(self.width / width, self.height / height)
        return max(1, int(width * scale)), max(1, int(height * scale))


def resized_pixels(image: Image.Image, rule: ResizeRule, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Resize an RGB picture by a rule: (height, width, 3) uint8."""
    return np.asarray(image.resize(rule.size(image.width, image.height), resample))
