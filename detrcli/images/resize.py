"""Resize rules: the size at which a network sees an image."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ResizeRule(Protocol):
    """Rule for the size of a network's input images.

    `checkpoints/preprocessing.py` reads the rule of a model from its files.
    """

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height of an image."""


@dataclass(frozen=True)
class ShortestEdge:
    """Keep the aspect ratio; scale the shorter side to `shortest`, or the longer one to `longest` (DETR, appendix A.4).

    The shorter side is rounded first, as in the original code, so that the longer side of an elongated image may exceed
    `longest` by a few pixels.
    """

    shortest: int = 800
    longest: int | None = 1333

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height, which are at least one pixel."""
        short, long = sorted((width, height))
        target = self.shortest
        if self.longest is not None and long / short * target > self.longest:
            target = max(1, round(self.longest * short / long))
        other = int(target * long / short)
        if self.longest is not None and target == 1:
            other = min(other, self.longest)
        return (target, other) if width < height else (other, target)

    def __str__(self) -> str:
        if self.longest is not None and self.longest <= self.shortest:
            return f"a longer side of {self.longest}"
        limit = "" if self.longest is None else f", but the longer side to at most {self.longest}"
        return f"a shorter side of {self.shortest}{limit}"


def shortest_edge(shortest: int) -> ShortestEdge:
    """DETR's rule for another size, with the ratio of longest to shortest side of the paper."""
    return ShortestEdge(shortest, shortest * 5 // 3)


@dataclass(frozen=True)
class Exactly:
    """Resize to one size, without keeping the aspect ratio."""

    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height."""
        return self.width, self.height

    def __str__(self) -> str:
        return f"{self.width} × {self.height}"


@dataclass(frozen=True)
class Within:
    """Keep the aspect ratio; resize to fit a frame."""

    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height, which are at least one pixel."""
        scale = min(self.width / width, self.height / height)
        return max(1, int(width * scale)), max(1, int(height * scale))

    def __str__(self) -> str:
        return f"fit {self.width} × {self.height}"


@dataclass(frozen=True)
class Padded:
    """Resize by another rule, then pad at the right and the bottom to one size.

    The padding is zero after normalization, and predicted boxes are relative to the padded image.

    Attributes:
        fit: rule for the image without padding.
        width: width with padding.
        height: height with padding.
    """

    fit: ResizeRule
    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height without padding."""
        fitted_width, fitted_height = self.fit.size(width, height)
        return min(fitted_width, self.width), min(fitted_height, self.height)

    def filled(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the height and width that images fill, from their heights and widths."""
        return [self.size(width, height)[::-1] for height, width in sizes]

    def __str__(self) -> str:
        return f"{self.fit}, padded to {self.width} × {self.height}"


def fit_and_pad(width: int, height: int) -> Padded:
    """Rule that keeps the aspect ratio, fits a frame and pads to fill it."""
    return Padded(Within(width, height), width, height)


def fixed_size(rule: ResizeRule) -> tuple[int, int] | None:
    """Return the width and height of the network input, or None if they depend on the image."""
    return (rule.width, rule.height) if isinstance(rule, Exactly | Padded) else None


def resize_image(image: Image.Image, rule: ResizeRule, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Resize an RGB image by a rule.

    Returns:
        (height, width, 3) uint8, with padding.
    """
    pixels = np.asarray(image.resize(rule.size(image.width, image.height), resample))
    if not isinstance(rule, Padded):
        return pixels
    canvas = np.zeros((rule.height, rule.width, 3), np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
