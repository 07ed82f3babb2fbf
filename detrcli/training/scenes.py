"""Rendered scenes of plain shapes with exact boxes, to train and test a small model on.

`python -m detrcli.training.scenes FOLDER` writes them in the layout of COCO.
"""

import argparse
import io
import json
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ..errors import DetrError
from ..files import atomic_file

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "bolt")
FIRST_OF_VAL = 2**31
"""Where the indices of the scenes for validation start; those for training lie below."""

SIDES = (240, 400)
MOST_OBJECTS = 10
SMALLEST, LARGEST = 36, 0.6
"""The longer side of an object's box: the least in pixels, the most as a share of the picture's shorter side."""
INSIDE, VISIBLE = 0.6, 0.45
"""The least share of an object that lies inside the picture, and of which neither that nor another object hides it."""
VISIBLE_PIXELS = 150
"""Of a small object, more must be seen: this many pixels, or nearly all of it."""
PLACEMENTS = 10
"""How often a place is sought for an object before it is left out."""
FINENESS = 3
FEWEST_TO_SHARE = 200
JPEG_QUALITY = 90
CONTRAST = 0.3
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
BELL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])
"""A byte drawn evenly, made normal."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: RGB.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, around the part of each object that can be seen.
        labels: (N,) indices into `CLASSES`.
    """

    image: Image.Image
    boxes: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Item:
    """One object where it lies, in pixels of the picture; parts of it may lie outside.

    Attributes:
        label: an index into `CLASSES`.
        outline: closed curves of (K, 2) points, the outer one first, then holes.
        left: the column of the picture at which `mask` starts.
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
        """The rows and columns of a picture that the mask lies on, and those of the mask that lie on the picture."""
        height, width = self.mask.shape
        x1, x2 = max(self.left, 0), min(self.left + width, size[0])
        y1, y2 = max(self.top, 0), min(self.top + height, size[1])
        return (slice(y1, y2), slice(x1, x2)), (
            slice(y1 - self.top, y2 - self.top),
            slice(x1 - self.left, x2 - self.left),
        )


@dataclass(frozen=True)
class Layout:
    """Which objects lie where in a picture, later ones on top.

    Attributes:
        size: width and height of the picture.
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


def scene(seed: int, index: int) -> Scene:
    """The scene of a number: always the same for the same numbers.

    Args:
        seed: which series of scenes, 0 or more.
        index: which scene of the series, from 0 to below 2**32.
    """
    layout = arrange(seed, index)
    (rng,) = np.random.default_rng((seed, index)).spawn(1)
    labels = np.array([item.label for item in layout.items], np.int64)
    return Scene(_paint(rng, layout), layout.boxes(), labels)


def write(folder: Path, count: int, seed: int, first: int = 0) -> None:
    """Write scenes in the layout of COCO: pictures from `000000.jpg` on, and, once all are there, `annotations.json`.

    Args:
        folder: where to; made if missing.
        count: how many.
        seed: which series of scenes.
        first: the index in the series of the scene that goes to `000000.jpg`.

    Raises:
        OutputError: a file cannot be written.
    """
    listing = folder / "annotations.json"
    with suppress(OSError):
        listing.unlink()  # of an earlier run, whose pictures are about to be replaced
    save = partial(_save, folder, seed, first)
    if count < FEWEST_TO_SHARE:
        record = _coco(map(save, range(count)))
    else:
        with ProcessPoolExecutor(_cores(), get_context("spawn"), _end_with_parent) as pool:
            record = _coco(pool.map(save, range(count), chunksize=16))
    with atomic_file(listing) as file:
        file.write(json.dumps(record).encode())


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
            on_picture, on_mask = item.inside((width, height))
            solid = item.solid[on_mask]
            shown, whole = solid.sum(), item.solid.sum()
            least = max(VISIBLE * whole, min(0.9 * whole, VISIBLE_PIXELS))
            hidden = np.bincount(owner[on_picture][solid] + 1, minlength=len(items) + 1)[1:]
            if shown >= max(INSIDE * whole, least) and np.all(spare >= hidden):
                spare = np.append(spare - hidden, shown - least)
                owner[on_picture][solid] = len(items)
                items.append(item)
                break
    return Layout((width, height), tuple(items), owner)


def _place(rng: np.random.Generator, label: int, size: tuple[int, int]) -> Item:
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) * (np.sqrt(stretch), 1 / np.sqrt(stretch))
    curves = [curve @ matrix.T for curve in _shape(CLASSES[label], rng.uniform())]
    corner, extent = curves[0].min(0), np.ptp(curves[0], axis=0)
    longest = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST * min(size))))
    scale = longest / extent.max()
    at = rng.uniform(-0.12, 1.12, 2) * (size - extent * scale)
    at = np.clip(at, -0.4 * extent * scale, size - 0.6 * extent * scale)
    outline = tuple(((curve - corner) * scale + at).astype(np.float32) for curve in curves)
    left, top = (np.floor(at).astype(int) - 1).tolist()
    across, down = (np.ceil(extent * scale).astype(int) + 3).tolist()
    canvas = Image.new("L", (across * FINENESS, down * FINENESS))
    pen = ImageDraw.Draw(canvas)
    for number, curve in enumerate(outline):
        pen.polygon(_fine(curve, left, top), fill=0 if number else 255)
    return Item(label, outline, left, top, np.asarray(canvas.reduce(FINENESS)))


def _fine(curve: Floats, left: int, top: int) -> list[float]:
    """The points of a curve, flat, for a finer canvas that starts at `left` and `top`; Pillow cuts off fractions."""
    points: list[float] = ((curve - (left, top)) * FINENESS).ravel().tolist()
    return points


def _shape(name: str, variant: float) -> list[NDArray[np.float64]]:
    """The curves of a class, the outer one first, then holes; `variant` from 0 to 1 sets their proportions."""
    match name:
        case "circle":
            return [_arc(0, 2 * np.pi)]
        case "ring":
            return [_arc(0, 2 * np.pi), _arc(0, 2 * np.pi) * (0.5 + 0.2 * variant)]
        case "square":
            return [np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)]
        case "triangle":
            return [_arc(0, 4 / 3 * np.pi, 3)]
        case "star":
            return [_arc(0, 1.8 * np.pi, 10) * np.tile((1, 0.36 + 0.12 * variant), 5)[:, None]]
        case "cross":
            arm = 0.22 + 0.14 * variant
            quarter = np.array([(arm, arm), (arm, 1), (-arm, 1)])
            return [np.concatenate([quarter, quarter[:, ::-1] * (-1, 1), -quarter, quarter[:, ::-1] * (1, -1)])]
        case "crescent":
            away, radius = 0.4 + 0.15 * variant, 0.8
            x = (1 - radius**2 + away**2) / (2 * away)
            y = np.sqrt(1 - x**2)
            outer, inner = np.arctan2(y, x), np.arctan2(y, x - away)
            hollow = _arc(2 * np.pi - inner, inner) * radius + (away, 0)
            return [np.concatenate([_arc(outer, 2 * np.pi - outer), hollow])]
        case "heart":
            t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
            return [np.stack([16 * np.sin(t) ** 3, -y], 1) / 16]
        case "arrow":
            shaft, neck = 0.2 + 0.12 * variant, 0.25 - 0.25 * variant
            upper = np.array([(-1, shaft), (neck, shaft), (neck, 0.72), (1, 0)])
            return [np.concatenate([upper, upper[-2::-1] * (1, -1)])]
        case _:
            points = np.array(
                [(0.15, -1), (-0.65, 0.2), (-0.12, 0.2), (-0.4, 1), (0.7, -0.3), (0.15, -0.3), (0.65, -1)]
            )
            return [points * (-1 if variant < 0.5 else 1, 1)]


def _arc(start: float, end: float, points: int = 64) -> NDArray[np.float64]:
    angles = np.linspace(start, end, points)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _paint(rng: np.random.Generator, layout: Layout) -> Image.Image:
    grey = rng.uniform() < 0.07
    canvas = _background(rng, layout.size)
    for item in layout.items:
        _paint_item(rng, canvas, item, grey)
    return _finish(rng, canvas, grey)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    shape = size[::-1]
    first, second, third = _colours(rng, 3, str(rng.choice(("pale", "dark", "any"), p=(0.4, 0.25, 0.35))))
    kind = str(rng.choice(("flat", "gradient", "noise", "checks", "stripes"), p=(0.12, 0.3, 0.28, 0.12, 0.18)))
    pattern = _pattern(rng, kind, shape, rng.uniform(14, 70))
    canvas = _mix(first, second, pattern * np.float32(rng.uniform(0.15, 0.7)))
    if rng.uniform() < 0.35:
        blobs = np.clip((_noise(rng, shape, rng.uniform(40, 120)) - np.float32(rng.uniform(0.45, 0.6))) * 25, 0, 1)
        _cover(canvas, third, blobs * np.float32(rng.uniform(0.2, 0.7)))
    if rng.uniform() < 0.45:
        _cover(canvas, _colours(rng, 1)[0], _scribbles(rng, size) * np.float32(rng.uniform(0.3, 0.9)))
    return canvas


def _scribbles(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Open curves, straight lines or short dashes: nothing that could be taken for a class."""
    width, height = size
    image = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(image)
    count, steps, step, bend = (
        (rng.integers(2, 7), 40, 20.0, 0.3),
        (rng.integers(2, 9), 2, 1600.0, 0.0),
        (rng.integers(20, 120), 2, rng.uniform(8, 36), 0.0),
    )[rng.integers(3)]
    thick = int(rng.integers(2, 9))
    for _ in range(count):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps))
        path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
        path += rng.uniform(0, 2, 2) * size - path.mean(0)
        pen.line(path.ravel().tolist(), fill=255, width=thick)
    return _share(image.reduce(2))


def _paint_item(rng: np.random.Generator, canvas: Floats, item: Item, grey: bool) -> None:
    extent, shape = max(item.mask.shape), item.mask.shape
    if rng.uniform() < 0.35:
        _cast_shadow(rng, canvas, item)
    first, second, third = _inks(rng, _around(canvas, item), grey)
    kinds = ("flat", "gradient", "stripes", "checks", "dots", "noise")
    kind = str(rng.choice(kinds, p=(0.28, 0.22, 0.16, 0.1, 0.1, 0.14)))
    texture = _mix(first, second, _pattern(rng, kind, shape, max(5.0, extent * rng.uniform(0.12, 0.3))))
    if rng.uniform() < 0.3:
        texture *= np.float32(1.1) - np.float32(0.25) * _pattern(rng, "gradient", shape, extent)
    if rng.uniform() < 0.3:
        _cover(texture, third, _rim(item, max(1.0, extent * rng.uniform(0.015, 0.05))))
    on_picture, on_mask = item.inside((canvas.shape[2], canvas.shape[1]))
    _cover(canvas[:, *on_picture], texture[:, *on_mask], _share(item.mask[on_mask]))


def _cast_shadow(rng: np.random.Generator, canvas: Floats, item: Item) -> None:
    extent = max(item.mask.shape)
    blur = max(1.0, extent * rng.uniform(0.02, 0.06))
    margin = int(3 * blur) + 1
    dark = np.asarray(Image.fromarray(np.pad(item.mask, margin)).filter(ImageFilter.BoxBlur(blur)))
    right, down = (rng.uniform(-0.08, 0.08, 2) * extent).astype(int).tolist()
    shadow = Item(item.label, (), item.left - margin + right, item.top - margin + down, dark)
    on_picture, on_mask = shadow.inside((canvas.shape[2], canvas.shape[1]))
    canvas[:, *on_picture] *= 1 - _share(dark[on_mask]) * np.float32(rng.uniform(0.25, 0.6))


def _rim(item: Item, thick: float) -> Floats:
    height, width = item.mask.shape
    image = Image.new("L", (width * FINENESS, height * FINENESS))
    pen = ImageDraw.Draw(image)
    for curve in item.outline:
        closed = np.concatenate([curve, curve[:2]])
        joint = "curve" if len(curve) < 20 else None
        pen.line(_fine(closed, item.left, item.top), fill=255, width=round(2 * thick * FINENESS), joint=joint)
    return _share(image.reduce(FINENESS))


def _around(canvas: Floats, item: Item) -> Floats:
    """(K, 3) colours of the canvas along the outer outline of an object, on both sides."""
    closed = np.concatenate([item.outline[0], item.outline[0][:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    even = np.linspace(0, along[-1], 40, endpoint=False)
    line = np.stack([np.interp(even, along, closed[:, 0]), np.interp(even, along, closed[:, 1])], 1)
    points = np.concatenate([line.mean(0) + (line - line.mean(0)) * share for share in (0.8, 1.1)])
    height, width = canvas.shape[1:]
    x, y = points[(points >= 0).all(1) & (points < (width, height)).all(1)].astype(int).T
    return canvas[:, y, x].T


def _inks(rng: np.random.Generator, around: Floats, grey: bool) -> Floats:
    """(3, 3) the first colours drawn that stand out from most of what is around, or else those that do so most."""
    inks = np.concatenate([_colours(rng, 10), _colours(rng, 3, "pale"), _colours(rng, 3, "dark")])
    far = np.abs(inks @ LUMINANCE - (around @ LUMINANCE)[:, None])
    if not grey:
        far = (far + np.sqrt(((inks - around[:, None]) ** 2).sum(2))) / 2
    stands_out = np.sort(far, axis=0)[len(around) // 7]
    return inks[np.argsort(-np.minimum(stands_out, CONTRAST), kind="stable")[:3]]


def _colours(rng: np.random.Generator, count: int, kind: str = "any") -> Floats:
    """(count, 3) colours from 0 to 1."""
    saturation, value = {
        "pale": ((0.03, 0.35), (0.78, 1.0)),
        "dark": ((0.1, 0.7), (0.08, 0.35)),
        "any": ((0.3, 1.0), (0.35, 1.0)),
    }[kind]
    hue = rng.uniform(0, 6, (count, 1))
    pure = np.clip(np.abs((hue + np.array((0, 4, 2))) % 6 - 3) - 1, 0, 1)
    strong = rng.uniform(*saturation, (count, 1))
    colours: Floats = ((1 - strong + strong * pure) * rng.uniform(*value, (count, 1))).astype(np.float32)
    return colours


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """(3, height, width) one colour where `share` is 0, another where it is 1."""
    mixed: Floats = (second - first)[:, None, None] * share
    mixed += first[:, None, None]
    return mixed


def _cover(canvas: Floats, paint: Floats, share: Floats) -> None:
    """Lay a colour, or as many as there are pixels, over a canvas."""
    over = (paint if paint.ndim == 3 else paint[:, None, None]) - canvas
    over *= share
    canvas += over


def _share(mask: Image.Image | NDArray[np.uint8]) -> Floats:
    return np.asarray(mask, np.float32) / np.float32(255)


def _pattern(rng: np.random.Generator, kind: str, shape: tuple[int, ...], period: float) -> Floats:
    """(height, width) values from 0 to 1.

    Args:
        rng: where the direction and all else comes from.
        kind: flat, gradient, noise, stripes, checks or dots.
        shape: height and width.
        period: pixels from one stripe, check or dot to the next.
    """
    if kind == "flat":
        return np.zeros(shape, np.float32)
    if kind == "noise":
        return _noise(rng, shape, period) * np.float32(0.6) + _noise(rng, shape, period / 3) * np.float32(0.4)
    height, width = shape
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    along, across = x * cos + y * sin, y * cos - x * sin
    if kind == "gradient":
        if rng.uniform() < 0.4:
            along = np.hypot(x - np.float32(rng.uniform(0, width)), y - np.float32(rng.uniform(0, height)))
        share: Floats = along - along.min()
        share /= share.max()
        return share
    pace = np.float32(2 * np.pi / period)
    match kind:
        case "stripes":
            wave = np.sin(along * pace)
        case "checks":
            wave = np.sin(along * pace) * np.sin(across * pace)
        case _:
            wave = np.cos(along * pace) + np.cos(across * pace) - np.float32(0.9)
    values: Floats = np.clip(wave * np.float32(period / 6) + np.float32(0.5), 0, 1)
    return values


def _noise(rng: np.random.Generator, shape: tuple[int, ...], period: float) -> Floats:
    """(height, width) smooth random values from 0 to 1."""
    height, width = shape
    coarse = rng.random((int(height / period) + 2, int(width / period) + 2), np.float32)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    values: Floats = np.clip(np.asarray(smooth), 0, 1)
    return values


def _finish(rng: np.random.Generator, canvas: Floats, grey: bool) -> Image.Image:
    """The picture of a canvas, as a camera might take it: brighter or flatter, blurred, with grain."""
    canvas *= np.float32(255 * rng.uniform(0.85, 1.12))
    canvas += np.float32(rng.uniform(-16, 20))
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in np.clip(canvas, 0, 255).astype(np.uint8)])
    if grey:
        image = image.convert("L")
    if rng.uniform() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    if rng.uniform() < 0.5:
        pixels = np.asarray(image)
        grain = (BELL * rng.uniform(1, 8)).round().astype(np.int16)
        drawn = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)
        image = Image.fromarray(np.clip(pixels + grain[drawn], 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _save(folder: Path, seed: int, first: int, position: int) -> tuple[tuple[int, int], list[list[float]], list[int]]:
    made = scene(seed, first + position)
    encoded = io.BytesIO()
    made.image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    with atomic_file(folder / f"{position:06d}.jpg") as file:
        file.write(encoded.getbuffer())
    return made.image.size, made.boxes.tolist(), made.labels.tolist()


def _coco(saved: Iterable[tuple[tuple[int, int], list[list[float]], list[int]]]) -> dict[str, list[dict[str, object]]]:
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for position, ((width, height), boxes, labels) in enumerate(saved):
        images.append({"id": position, "file_name": f"{position:06d}.jpg", "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": position, "category_id": label + 1,
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    categories: list[dict[str, object]] = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _end_with_parent() -> None:
    """Let this process end when the one that started it is killed, which the pool does not see to."""

    def follow() -> None:
        parent = parent_process()
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a set to train on and one to validate on, of different scenes whatever their numbers."""
    parser = argparse.ArgumentParser(prog="python -m detrcli.training.scenes", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="gets the folders train and val")
    parser.add_argument("--train", type=int, default=20_000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--val", type=int, default=500, help="scenes to validate on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another gives other scenes (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        write(options.folder / "train", options.train, options.seed)
        write(options.folder / "val", options.val, options.seed, FIRST_OF_VAL)
    except DetrError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
