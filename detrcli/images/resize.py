"""From an image to the size that a network takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ResizeRule(Protocol):
    """How large a network wants its images."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to resize an image of this width and height to."""


@dataclass(frozen=True)
class ShortestEdge:
    """Aspect kept: the shorter side becomes `shortest`, unless the longer would pass `longest` (DETR, appendix A.4).

    Then the shorter side is rounded first, as in the original, so that the longer one of a long image may pass
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

    def __str__(self) -> str:
        limit = "" if self.longest is None else f", but the longer side to at most {self.longest}"
        return f"a shorter side of {self.shortest}{limit}"


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

    def __str__(self) -> str:
        return f"fit {self.width} × {self.height}"


@dataclass(frozen=True)
class Padded:
    """Resized by another rule, then padded at the right and the bottom to one size for all.

    The padding is zero after normalization, and what the network predicts is relative to the padded image.

    Attributes:
        fit: the rule for the image.
        width: with padding.
        height: with padding.
    """

    fit: ResizeRule
    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, without padding."""
        fitted_width, fitted_height = self.fit.size(width, height)
        return min(fitted_width, self.width), min(fitted_height, self.height)

    def filled(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Height and width that images of these heights and widths fill."""
        return [self.size(width, height)[::-1] for height, width in sizes]

    def __str__(self) -> str:
        return f"{self.fit}, padded to {self.width} × {self.height}"


def fit_and_pad(width: int, height: int) -> Padded:
    """Aspect kept: as large as fits a frame, padded to fill it."""
    return Padded(Within(width, height), width, height)


def canvas_of(rule: ResizeRule) -> tuple[int, int] | None:
    """Width and height of all that a network is given, or None where they depend on the image."""
    return (rule.width, rule.height) if isinstance(rule, Exactly | Padded) else None


def resized_pixels(image: Image.Image, rule: ResizeRule, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Resize an RGB image by a rule: (height, width, 3) uint8, padding included."""
    pixels = np.asarray(image.resize(rule.size(image.width, image.height), resample))
    if not isinstance(rule, Padded):
        return pixels
    canvas = np.zeros((rule.height, rule.width, 3), np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
