"""Resizing: the size at which a network sees an image, and how its pixels are computed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels: TypeAlias = NDArray[np.uint8 | np.float32]
"""Resized RGB image, (H, W, 3) in 0…255."""
Size: TypeAlias = int | tuple[int, int]
"""One number, whose meaning depends on the resize rule, or width and height."""
PixelType: TypeAlias = type[np.uint8] | type[np.float32]
BAND = 32
"""Rows that are interpolated at once, few enough to stay in the CPU's cache."""


class ResizeRule(Protocol):
    """Rule for the size of a network's input images.

    `checkpoints/preprocessing.py` reads the rule of a model from its files.
    """

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height of an image."""

    def for_size(self, size: Size) -> "ResizeRule":
        """Return the rule for another size: one number, whose meaning depends on this rule, or width and height."""


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

    def for_size(self, size: Size) -> "ShortestEdge | Exactly":
        """Return the rule for a size; one number is the shorter side, with the ratio to `longest` of the paper."""
        return ShortestEdge(size, size * 5 // 3) if isinstance(size, int) else Exactly(*size)

    def __str__(self) -> str:
        if self.longest is not None and self.longest <= self.shortest:
            return f"a longer side of {self.longest}"
        limit = "" if self.longest is None else f", but the longer side to at most {self.longest}"
        return f"a shorter side of {self.shortest}{limit}"


@dataclass(frozen=True)
class ExactLongestEdge(ShortestEdge):
    """Like `ShortestEdge`, but where `longest` limits an image, its longer side is exactly that (Table Transformer)."""

    longest: int = 800

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height, which are at least one pixel."""
        short, long = sorted((width, height))
        if long * self.shortest <= self.longest * short:
            return super().size(width, height)
        other = max(1, round(self.longest * short / long))
        return (other, self.longest) if width < height else (self.longest, other)

    def for_size(self, size: Size) -> "ExactLongestEdge | Exactly":
        """Return the rule for a size; one number is the longer side."""
        return longest_edge(size) if isinstance(size, int) else Exactly(*size)


def longest_edge(longest: int) -> ExactLongestEdge:
    """Rule that scales the longer side, whatever the shorter one."""
    return ExactLongestEdge(longest, longest)


@dataclass(frozen=True)
class Exactly:
    """Resize to one size, without keeping the aspect ratio."""

    width: int
    height: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height."""
        return self.width, self.height

    def for_size(self, size: Size) -> "Exactly":
        """Return the rule for a size; one number is that of a square."""
        return Exactly(*_sides(size))

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

    def for_size(self, size: Size) -> ResizeRule:
        """Return the rule for a size; one number means the same as in the paper's rule, which this one replaces."""
        return ShortestEdge().for_size(size)

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

    def for_size(self, size: Size) -> "Padded":
        """Return the rule for a size with padding; one number is that of a square."""
        return fit_and_pad(*_sides(size))

    def filled(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the height and width that images fill, from their heights and widths."""
        return [self.size(width, height)[::-1] for height, width in sizes]

    def __str__(self) -> str:
        return f"{self.fit}, padded to {self.width} × {self.height}"


def fit_and_pad(width: int, height: int) -> Padded:
    """Rule that keeps the aspect ratio, fits a frame and pads to fill it."""
    return Padded(Within(width, height), width, height)


def _sides(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def fixed_size(rule: ResizeRule) -> tuple[int, int] | None:
    """Return the width and height of the network input, or None if they depend on the image."""
    return (rule.width, rule.height) if isinstance(rule, Exactly | Padded) else None


class Resample(Protocol):
    """Method to compute the pixels of a resized image.

    `checkpoints/preprocessing.py` reads the method of a model from its files.
    """

    dtype: ClassVar[PixelType]
    """Type of the pixels."""

    def resize(self, image: Image.Image, width: int, height: int) -> Pixels:
        """Resize an RGB image to a width and a height."""


@dataclass(frozen=True)
class PillowFilter:
    """One of Pillow's filters, which average over all pixels when an image shrinks, and round to 8 bits."""

    filter: Image.Resampling
    dtype: ClassVar[PixelType] = np.uint8

    def resize(self, image: Image.Image, width: int, height: int) -> Pixels:
        """Resize an RGB image to a width and a height."""
        return np.asarray(image.resize((width, height), self.filter))


PILLOW_BILINEAR = PillowFilter(Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class BilinearSampling:
    """Bilinear interpolation without antialiasing: four pixels, however much an image shrinks, and no rounding.

    The same as PyTorch's `interpolate` with align_corners=False.
    """

    dtype: ClassVar[PixelType] = np.float32

    def resize(self, image: Image.Image, width: int, height: int) -> Pixels:
        """Resize an RGB image to a width and a height."""
        upper, lower, down = _neighbors(image.height, height)
        left, right, across = _neighbors(image.width, width)
        rows_at = _row_reader(image, 2 * height)
        result = np.empty((height, width * 3), np.float32)
        for start in range(0, height, BAND):
            band = slice(start, start + BAND)
            rows = rows_at(np.concatenate((upper[band], lower[band])))
            before, after = (rows.take(columns, axis=1).reshape(len(rows), -1) for columns in (left, right))
            above, below = np.split(_interpolate(before, after, across.repeat(3)), 2)
            result[band] = _interpolate(above, below, down[band, None])
        return result.reshape(height, width, 3)


def _neighbors(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pixels before and after the position of each of `new` pixels along a side of `old`, and the second one's weight.

    Positions are rounded as in PyTorch: to float32, in a fused multiply-add.
    """
    scale = np.float64(np.float32(old) / np.float32(new))
    positions = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32).clip(0, old - 1)
    before = positions.astype(np.int64)
    return before, np.minimum(before + 1, old - 1), positions - before.astype(np.float32)


def _row_reader(image: Image.Image, count: int) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    """Return a function from indices to rows (N, W, 3) of an RGB image, of which `count` will be read.

    If an image has far more rows, only those that are read are converted to arrays.
    """
    if image.height < 2 * count:
        return np.asarray(image).__getitem__

    def rows_at(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.concatenate([np.asarray(image.crop((0, row, image.width, row + 1))) for row in indices.tolist()])

    return rows_at


def _interpolate(start: Pixels, end: Pixels, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interpolate linearly between two arrays, in float32."""
    result = np.subtract(end, start, dtype=np.float32)
    result *= weights
    result += start
    return result


def resize_image(image: Image.Image, rule: ResizeRule, resample: Resample) -> Pixels:
    """Resize an RGB image by a rule.

    Returns:
        (height, width, 3), with padding.
    """
    pixels = resample.resize(image, *rule.size(image.width, image.height))
    if not isinstance(rule, Padded):
        return pixels
    canvas = np.zeros((rule.height, rule.width, 3), resample.dtype)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
