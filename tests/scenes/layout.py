"""Layout of a rendered scene: the shapes, their positions, and their visible parts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .shapes import CLASSES, curves

SIDES = (240, 400)
MOST_OBJECTS = 10
SMALLEST, LARGEST = 36, 0.6
"""Longer side of an object's box: minimum in pixels, maximum relative to the shorter side of the image."""
INSIDE, VISIBLE = 0.6, 0.45
"""Minimum fractions of an object inside the image, and visible behind the image border and other objects."""
VISIBLE_PIXELS = 150
"""Minimum number of visible pixels, or 90 % of a smaller object."""
PLACEMENTS = 10
"""Attempts to place an object before it is skipped."""
OVERSAMPLING = 3
"""Subpixels per side of a pixel in masks."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """Placed object in pixels of the image, possibly partly outside.

    Attributes:
        label: index into `CLASSES`.
        outline: closed curves of (K, 2) points, the outer one first, then holes.
        left: column of the image at which `mask` starts.
        top: row of the image at which `mask` starts.
        mask: coverage of each pixel, 0 to 255.
    """

    label: int
    outline: tuple[Floats, ...]
    left: int
    top: int
    mask: NDArray[np.uint8]

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """Pixels that are at least half covered."""
        return self.mask >= 128

    def inside(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the overlap of mask and image, as slices of the image and slices of the mask."""
        height, width = self.mask.shape
        x1, x2 = max(self.left, 0), min(self.left + width, size[0])
        y1, y2 = max(self.top, 0), min(self.top + height, size[1])
        return (slice(y1, y2), slice(x1, x2)), (
            slice(y1 - self.top, y2 - self.top),
            slice(x1 - self.left, x2 - self.left),
        )


@dataclass(frozen=True)
class Layout:
    """Objects in an image, later ones on top.

    Attributes:
        size: width and height of the image.
        items: the objects.
        owner: (height, width) index of the visible object at each pixel, or -1.
    """

    size: tuple[int, int]
    items: tuple[Item, ...]
    owner: NDArray[np.int8]

    def boxes(self) -> Floats:
        """Return the (N, 4) bounding boxes of the visible parts of the objects."""
        boxes = np.empty((len(self.items), 4), np.float32)
        for index in range(len(self.items)):
            visible = self.owner == index
            columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
            boxes[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes


def arrange(seed: int, index: int) -> Layout:
    """Place the objects of a scene so that each is recognizable."""
    rng = np.random.default_rng((seed, index))
    width = int(rng.integers(SIDES[0], SIDES[1], endpoint=True))
    height = int(rng.integers(max(SIDES[0], -(-width * 3 // 4)), min(SIDES[1], width * 4 // 3), endpoint=True))
    owner = np.full((height, width), -1, np.int8)
    items: list[Item] = []
    spare = np.empty(0)  # number of pixels of each object that may still be covered
    for label in rng.integers(len(CLASSES), size=rng.integers(1, MOST_OBJECTS, endpoint=True)).tolist():
        for _ in range(PLACEMENTS):
            item = _place(rng, label, (width, height))
            on_image, on_mask = item.inside((width, height))
            solid = item.solid[on_mask]
            visible, total = solid.sum(), item.solid.sum()
            least = max(VISIBLE * total, min(0.9 * total, VISIBLE_PIXELS))
            hidden = np.bincount(owner[on_image][solid] + 1, minlength=len(items) + 1)[1:]
            if visible >= max(INSIDE * total, least) and np.all(spare >= hidden):
                spare = np.append(spare - hidden, visible - least)
                owner[on_image][solid] = len(items)
                items.append(item)
                break
    return Layout((width, height), tuple(items), owner)


def _place(rng: np.random.Generator, label: int, size: tuple[int, int]) -> Item:
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) * (np.sqrt(stretch), 1 / np.sqrt(stretch))
    rotated = [curve @ matrix.T for curve in curves(CLASSES[label], rng.uniform())]
    corner, extent = rotated[0].min(0), np.ptp(rotated[0], axis=0)
    longest = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST * min(size))))
    scale = longest / extent.max()
    at = rng.uniform(-0.12, 1.12, 2) * (size - extent * scale)
    at = np.clip(at, -0.4 * extent * scale, size - 0.6 * extent * scale)
    outline = tuple(((curve - corner) * scale + at).astype(np.float32) for curve in rotated)
    left, top = (np.floor(at).astype(int) - 1).tolist()
    width, height = (np.ceil(extent * scale).astype(int) + 3).tolist()
    canvas = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for number, curve in enumerate(outline):
        pen.polygon(oversampled(curve, left, top), fill=0 if number else 255)
    return Item(label, outline, left, top, np.asarray(canvas.reduce(OVERSAMPLING)))


def oversampled(curve: Floats, left: int, top: int) -> list[float]:
    """Flat coordinates of a curve on an oversampled canvas, because Pillow truncates fractions."""
    points: list[float] = ((curve - (left, top)) * OVERSAMPLING).ravel().tolist()
    return points
