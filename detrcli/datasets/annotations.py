"""Images and their objects, and what can be wrong with them."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, ImageError
from ..images.header import INSTALL_HEIF
from ..images.sources import CocoId
from ..images.upright import UprightSize, upright_size

Split = Literal["train", "val", "test"]
SPLITS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation", "test"),
    "test": ("test",),
}
"""What the parts of a dataset may be called, the best first."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""
TOGETHER = 256
"""Images that a thread looks at in turn."""


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its objects.

    Attributes:
        path: the image file.
        image_id: its id in COCO, which may be text, or its place in the dataset, counted from 1.
        width: pixels of the upright image.
        height: the same.
        boxes: (N, 4) float32 as x1, y1, x2, y2 in pixels, inside the image.
        labels: (N,) int64, indices into the dataset's classes.
        areas: (N,) float32 as annotated, or the boxes' areas.
        crowd: (N,) bool, groups of objects (COCO's iscrowd): not learned from, and no fault if not found.
    """

    path: Path
    image_id: CocoId
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled dataset.

    Attributes:
        name: what the user called it.
        classes: the name of each label.
        category_ids: the id of each label in COCO; elsewhere they count from 1, as `detr predict` has them count.
        examples: the images.
        problems: a line each on what was wrong and what was done.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    examples: tuple[Example, ...]
    problems: tuple[str, ...]


def align_classes(data: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The same dataset with the classes of another one, found by name; objects of other classes are left out."""
    if data.classes == classes:
        return data
    places = {name: label for label, name in enumerate(classes)}
    labels = np.array([places.get(name, -1) for name in data.classes], np.int64)
    examples = []
    for one in data.examples:
        known = labels[one.labels] >= 0
        boxes, areas, crowd = one.boxes[known], one.areas[known], one.crowd[known]
        examples.append(replace(one, labels=labels[one.labels][known], boxes=boxes, areas=areas, crowd=crowd))
    lost = Counter(data.classes[label] for one in data.examples for label in one.labels if labels[label] < 0)
    problems = list(data.problems)
    if lost:
        problems.append(f"{data.name}: {lost.total()} objects of other classes, such as {next(iter(lost))!r}: left out")
    ids = tuple(range(1, len(classes) + 1))
    return replace(data, classes=classes, category_ids=ids, examples=tuple(examples), problems=tuple(problems))


@dataclass(frozen=True)
class RawImage:
    """An image before it is looked at.

    Attributes:
        path: the image file.
        image_id: as in `Example`.
        size: width and height as annotated, or None where they are not.
    """

    path: Path
    image_id: CocoId
    size: tuple[int, int] | None = None


RAW_OBJECT = np.dtype(
    [("image", np.int64), ("label", np.int64), ("box", np.float64, 4), ("area", np.float64), ("crowd", np.bool_)]
)
"""An object before it is checked: the place of its image, its label, its box as x1, y1, x2, y2, its area, zero where
it is not annotated, and whether it is a crowd."""


def checked(
    name: str,
    classes: Sequence[str],
    ids: Sequence[int],
    images: Sequence[RawImage],
    objects: NDArray[np.void],
    also: Iterable[str],
    *,
    part: str | None = None,
    relative: bool = False,
    strict: bool = False,
) -> Dataset:
    """Look at every image's header and every box.

    Args:
        name: of the dataset.
        classes: the name of each label, without spaces around it.
        ids: the id of each.
        images: all of them.
        objects: (N,) `RAW_OBJECT`, in any order.
        also: problems that are known already.
        part: which of `SPLITS` this is, if the dataset has parts.
        relative: whether the boxes are relative to their images, and not in pixels.
        strict: whether to refuse images that were annotated as they are stored, not as they are shown (see
            `_annotated_sideways`), instead of leaving them out.

    Raises:
        DatasetError: images are missing or cannot be read, there are none, no classes or no sound boxes, or classes
            have no name of their own.
    """
    if not images:
        raise DatasetError(f"{name}: the dataset has no images")
    if not classes:
        raise DatasetError(f"{name}: the dataset has no classes")
    blank = [str(number) for number, title in zip(ids, classes, strict=True) if not title]
    _refuse(name, blank, "classes have no name", "name them")
    twice = [title for title, count in Counter(classes).items() if count > 1]
    if twice:
        raise DatasetError(f"{name}: {len(twice)} class names stand twice, such as {twice[0]!r}; give each its own")
    sizes = _sizes(name, images)
    problems = [*also, *_other_sizes(images, sizes)]
    sideways = [_annotated_sideways(one, size) for one, size in zip(images, sizes, strict=True)]
    if any(sideways):
        first = images[sideways.index(True)].path
        fault = f"{sum(sideways)} images are rotated by their EXIF data, but annotated as they are stored"
        if strict:
            _refuse(name, [str(first)] * sum(sideways), fault.partition(" ")[2], "annotate them as they are shown")
        problems.append(f"{fault}, such as {first}: left out")
    examples, faults = _examples(images, [(size.width, size.height) for size in sizes], objects, relative=relative)
    examples = tuple(one for one, out in zip(examples, sideways, strict=True) if not out)
    problems += faults
    seen = {int(label) for example in examples for label in example.labels[~example.crowd]}
    if not seen:
        raise DatasetError(f"{name}: the dataset has no objects{f' ({problems[0]})' if problems else ''}")
    idle = [repr(title) for label, title in enumerate(classes) if label not in seen]
    if idle:
        problems.append(f"{len(idle)} classes have no object: {', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}")
    if part == "test":
        problems.append("there is no val split, so the test split serves as one")
    return Dataset(name, tuple(classes), tuple(ids), examples, tuple(f"{name}: {line}" for line in problems))


def _sizes(name: str, images: Sequence[RawImage]) -> list[UprightSize]:
    """The size of every image."""
    missing = [str(one.path) for one in images if not os.path.isfile(one.path)]
    _refuse(name, missing, "images are missing", "put them there")
    parts = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = [size for sizes in pool.map(_upright_sizes, parts) for size in sizes]
    lacking = [str(one.path) for one, size in zip(images, found, strict=True) if isinstance(size, ImageError)]
    _refuse(name, lacking, "HEIC images need pillow-heif", INSTALL_HEIF)
    unread = [str(one.path) for one, size in zip(images, found, strict=True) if size is None]
    _refuse(name, unread, "images cannot be read", "mend or remove them")
    return [size for size in found if isinstance(size, UprightSize)]


def _upright_sizes(images: Sequence[RawImage]) -> list[UprightSize | ImageError | None]:
    sizes: list[UprightSize | ImageError | None] = []
    for one in images:
        try:
            sizes.append(upright_size(one.path))
        except ImageError as error:
            sizes.append(error)
    return sizes


def _annotated_sideways(image: RawImage, size: UprightSize) -> bool:
    """Whether an image that EXIF turns by 90° was annotated without turning it, so that its boxes are elsewhere."""
    return size.turned and size.width != size.height and image.size == (size.height, size.width)


def _other_sizes(images: Sequence[RawImage], sizes: Sequence[UprightSize]) -> list[str]:
    """What is said of images whose annotated size is wrong, though not for being turned."""
    wrong = [
        f"{one.path} ({one.size[0]} × {one.size[1]} instead of {size.width} × {size.height})"
        for one, size in zip(images, sizes, strict=True)
        if one.size is not None and one.size != (size.width, size.height) and not _annotated_sideways(one, size)
    ]
    if not wrong:
        return []
    return [f"{len(wrong)} images have another size than annotated, such as {wrong[0]}: the real size counts"]


def _examples(
    images: Sequence[RawImage], sizes: Sequence[tuple[int, int]], objects: NDArray[np.void], *, relative: bool
) -> tuple[tuple[Example, ...], list[str]]:
    """The images with their sound objects, and what was wrong with the others."""
    objects = objects[np.argsort(objects["image"], kind="stable")]
    limits = np.tile(np.array(sizes, dtype=np.float32), 2)[objects["image"]]
    boxes = (objects["box"] * limits if relative else objects["box"]).astype(np.float32)
    inside = boxes.clip(0, limits)
    whole = np.isfinite(boxes).all(1)
    good = whole & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    flat = whole & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    clipped = good & (np.abs(inside - boxes) > 0.5).any(1)
    faults = [
        f"{which.sum()} boxes {what}, such as in {images[objects['image'][which.argmax()]].path}: {done}"
        for what, done, which in (
            ("are no numbers", "left out", ~whole),
            ("have no width or no height", "left out", flat),
            ("lie outside their image", "left out", whole & ~good & ~flat),
            ("reach beyond their image", "cut off there", clipped),
        )
        if which.any()
    ]
    objects, boxes = objects[good], inside[good]
    annotated, actual = objects["area"], (boxes[:, 2:] - boxes[:, :2]).prod(1)
    labels, crowd = objects["label"].copy(), objects["crowd"].copy()
    areas = np.where(annotated > 0, annotated, actual).astype(np.float32)
    ends = np.searchsorted(objects["image"], np.arange(len(images) + 1)).tolist()
    examples = tuple(
        Example(one.path, one.image_id, *size, boxes[at:end], labels[at:end], areas[at:end], crowd[at:end])
        for one, size, (at, end) in zip(images, sizes, pairwise(ends), strict=True)
    )
    return examples, faults


def _refuse(name: str, bad: Sequence[str], what: str, advice: str) -> None:
    if bad:
        raise DatasetError(f"{name}: {len(bad)} {what}, such as {bad[0]}; {advice}")
