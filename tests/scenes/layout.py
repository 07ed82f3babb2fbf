"""Which shapes lie where in a rendered scene, and how much of each can be seen."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .shapes import CLASSES, curves

SIDES = (240, 400)
MOST_OBJECTS = 10
SMALLEST, LARGEST = 36, 0.6
"""The longer side of an object's box: the least in pixels, the most as a share of the image's shorter side."""
INSIDE, VISIBLE = 0.6, 0.45
"""The least share of an object that lies inside the image, and of which neither that nor another object hides it."""
VISIBLE_PIXELS = 150
"""Of a small object, more must be seen: this many pixels, or nearly all of it."""
PLACEMENTS = 10
"""How often a place is sought for an object before it is left out."""
FINENESS = 3

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """One object where it lies, in pixels of the image; parts of it may lie outside.

    Attributes:
        label: an index into `CLASSES`.
        outline: closed curves of (K, 2) points, the outer one first, then holes.
        left: the column of the image at which `mask` starts.
        top: its row.
        mask: how much of each pixel the object covers, 0 to 255.
    """

    label: int
    outline: tuple[Floats, ...]
    left: int
    top: int
    mask: NDArray[np.uint8]

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """The pixels that the object covers by half or more."""
        return self.mask >= 128

    def inside(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The rows and columns of an image that the mask lies on, and those of the mask that lie on the image."""
        height, width = self.mask.shape
        x1, x2 = max(self.left, 0), min(self.left + width, size[0])
        y1, y2 = max(self.top, 0), min(self.top + height, size[1])
        return (slice(y1, y2), slice(x1, x2)), (
            slice(y1 - self.top, y2 - self.top),
            slice(x1 - self.left, x2 - self.left),
        )


@dataclass(frozen=True)
class Layout:
    """Which objects lie where in an image, later ones on top.

    Attributes:
        size: width and height of the image.
        items: the objects.
        owner: (height, width) the index of the object that each pixel shows, -1 for none.
    """

    size: tuple[int, int]
    items: tuple[Item, ...]
    owner: NDArray[np.int8]

    def boxes(self) -> Floats:
        """(N, 4) the smallest boxes around what can be seen of each object."""
        boxes = np.empty((len(self.items), 4), np.float32)
        for index in range(len(self.items)):
            seen = self.owner == index
            columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
            boxes[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes


def arrange(seed: int, index: int) -> Layout:
    """Lay out the objects of a scene so that enough can be seen of each to know it by."""
    rng = np.random.default_rng((seed, index))
    width = int(rng.integers(SIDES[0], SIDES[1], endpoint=True))
    height = int(rng.integers(max(SIDES[0], -(-width * 3 // 4)), min(SIDES[1], width * 4 // 3), endpoint=True))
    owner = np.full((height, width), -1, np.int8)
    items: list[Item] = []
    spare = np.empty(0)  # pixels of each object that may still be hidden
    for label in rng.integers(len(CLASSES), size=rng.integers(1, MOST_OBJECTS, endpoint=True)).tolist():
        for _ in range(PLACEMENTS):
            item = _place(rng, label, (width, height))
            on_image, on_mask = item.inside((width, height))
            solid = item.solid[on_mask]
            shown, whole = solid.sum(), item.solid.sum()
            least = max(VISIBLE * whole, min(0.9 * whole, VISIBLE_PIXELS))
            hidden = np.bincount(owner[on_image][solid] + 1, minlength=len(items) + 1)[1:]
            if shown >= max(INSIDE * whole, least) and np.all(spare >= hidden):
                spare = np.append(spare - hidden, shown - least)
                owner[on_image][solid] = len(items)
                items.append(item)
                break
    return Layout((width, height), tuple(items), owner)


def _place(rng: np.random.Generator, label: int, size: tuple[int, int]) -> Item:
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) * (np.sqrt(stretch), 1 / np.sqrt(stretch))
    turned = [curve @ matrix.T for curve in curves(CLASSES[label], rng.uniform())]
    corner, extent = turned[0].min(0), np.ptp(turned[0], axis=0)
    longest = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST * min(size))))
    scale = longest / extent.max()
    at = rng.uniform(-0.12, 1.12, 2) * (size - extent * scale)
    at = np.clip(at, -0.4 * extent * scale, size - 0.6 * extent * scale)
    outline = tuple(((curve - corner) * scale + at).astype(np.float32) for curve in turned)
    left, top = (np.floor(at).astype(int) - 1).tolist()
    across, down = (np.ceil(extent * scale).astype(int) + 3).tolist()
    canvas = Image.new("L", (across * FINENESS, down * FINENESS))
    pen = ImageDraw.Draw(canvas)
    for number, curve in enumerate(outline):
        pen.polygon(fine(curve, left, top), fill=0 if number else 255)
    return Item(label, outline, left, top, np.asarray(canvas.reduce(FINENESS)))


def fine(curve: Floats, left: int, top: int) -> list[float]:
    """The points of a curve, flat, for a finer canvas that starts at `left` and `top`; Pillow cuts off fractions."""
    points: list[float] = ((curve - (left, top)) * FINENESS).ravel().tolist()
    return points
