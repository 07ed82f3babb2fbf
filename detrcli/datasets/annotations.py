"""Datasets in memory, and the checks that all formats share."""

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
"""Names of each split in order of preference."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""
CHUNK = 256
"""Images per task of the thread pool."""


@dataclass(frozen=True, eq=False)
class Example:
    """Image and its objects.

    Attributes:
        path: path of the image file.
        image_id: id in a COCO file, or else position in the dataset, from 1.
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels, inside the image.
        labels: (N,) int64, indices into the dataset's classes.
        areas: (N,) float32, annotated areas, or else those of the boxes.
        crowd: (N,) bool, groups of objects (COCO's iscrowd), which are ignored in training and evaluation.
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
    """Labeled dataset.

    Attributes:
        name: name for messages.
        classes: class name of each label.
        category_ids: COCO category id of each label; numbered from 1 for other formats.
        examples: the images.
        problems: one line about each kind of problem and what was done about it.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    examples: tuple[Example, ...]
    problems: tuple[str, ...]


def align_classes(data: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Give a dataset the classes of another one, matched by name; skip objects of other classes."""
    if data.classes == classes:
        return data
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of.get(name, -1) for name in data.classes], np.int64)
    examples = []
    for one in data.examples:
        known = labels[one.labels] >= 0
        boxes, areas, crowd = one.boxes[known], one.areas[known], one.crowd[known]
        examples.append(replace(one, labels=labels[one.labels][known], boxes=boxes, areas=areas, crowd=crowd))
    lost = Counter(data.classes[label] for one in data.examples for label in one.labels if labels[label] < 0)
    problems = list(data.problems)
    if lost:
        problems.append(f"{data.name}: {lost.total()} objects of other classes, such as {next(iter(lost))!r}: skipped")
    ids = tuple(range(1, len(classes) + 1))
    return replace(data, classes=classes, category_ids=ids, examples=tuple(examples), problems=tuple(problems))


@dataclass(frozen=True)
class RawImage:
    """Image before it is checked.

    Attributes:
        path: path of the image file.
        image_id: see `Example`.
        size: annotated width and height, or None.
    """

    path: Path
    image_id: CocoId
    size: tuple[int, int] | None = None


RAW_OBJECT = np.dtype(
    [("image", np.int64), ("label", np.int64), ("box", np.float64, 4), ("area", np.float64), ("crowd", np.bool_)]
)
"""Object before it is checked: index of its image, label, box as x1, y1, x2, y2, area (zero if not annotated), and
whether it is a crowd."""


def build_dataset(
    name: str,
    classes: Sequence[str],
    ids: Sequence[int],
    images: Sequence[RawImage],
    objects: NDArray[np.void],
    problems: Iterable[str],
    *,
    split_name: str | None = None,
    relative: bool = False,
    strict: bool = False,
) -> Dataset:
    """Check the headers of all images and all boxes, and build a dataset.

    Args:
        name: name for messages.
        classes: class name of each label, stripped.
        ids: category id of each label.
        images: the images.
        objects: (N,) `RAW_OBJECT`, in any order.
        problems: problems that are already known.
        split_name: which name in `SPLITS` the split has, if the dataset has splits.
        relative: whether boxes are relative to the image size instead of in pixels.
        strict: whether to refuse images that were annotated unrotated (see `_is_annotated_unrotated`), instead of
            skipping them.

    Raises:
        DatasetError: images are missing or cannot be read; there are no images, no classes or no valid boxes; or class
            names are empty or not unique.
    """
    if not images:
        raise DatasetError(f"{name}: the dataset has no images")
    if not classes:
        raise DatasetError(f"{name}: the dataset has no classes")
    blank = [str(number) for number, title in zip(ids, classes, strict=True) if not title]
    _refuse(name, blank, "classes have no name", "name them")
    twice = [title for title, count in Counter(classes).items() if count > 1]
    if twice:
        raise DatasetError(f"{name}: {len(twice)} class names are not unique, such as {twice[0]!r}; rename them")
    sizes = _sizes(name, images)
    problems = [*problems, *_wrong_sizes(images, sizes)]
    unrotated = [_is_annotated_unrotated(one, size) for one, size in zip(images, sizes, strict=True)]
    if bad := [str(one.path) for one, skip in zip(images, unrotated, strict=True) if skip]:
        problem = "images are rotated by their EXIF data, but were annotated unrotated"
        if strict:
            _refuse(name, bad, problem, "annotate them upright")
        problems.append(f"{len(bad)} {problem}, such as {bad[0]}: skipped")
    examples, box_problems = _examples(
        images, [(size.width, size.height) for size in sizes], objects, relative=relative
    )
    examples = tuple(one for one, skip in zip(examples, unrotated, strict=True) if not skip)
    problems += box_problems
    seen = {int(label) for example in examples for label in example.labels[~example.crowd]}
    if not seen:
        raise DatasetError(f"{name}: the dataset has no objects{f' ({problems[0]})' if problems else ''}")
    unused = [repr(title) for label, title in enumerate(classes) if label not in seen]
    if unused:
        more = ", …" if len(unused) > 5 else ""
        problems.append(f"{len(unused)} classes have no objects: {', '.join(unused[:5])}{more}")
    if split_name == "test":
        problems.append("there is no val split; the test split is used instead")
    return Dataset(name, tuple(classes), tuple(ids), examples, tuple(f"{name}: {line}" for line in problems))


def _sizes(name: str, images: Sequence[RawImage]) -> list[UprightSize]:
    """Read the upright size of every image."""
    missing = [str(one.path) for one in images if not os.path.isfile(one.path)]
    _refuse(name, missing, "images are missing", "add them or correct their paths")
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = [size for sizes in pool.map(_upright_sizes, chunks) for size in sizes]
    heic = [str(one.path) for one, size in zip(images, found, strict=True) if isinstance(size, ImageError)]
    _refuse(name, heic, "HEIC images cannot be read without pillow-heif", INSTALL_HEIF)
    unreadable = [str(one.path) for one, size in zip(images, found, strict=True) if size is None]
    _refuse(name, unreadable, "images cannot be read", "repair or remove them")
    return [size for size in found if isinstance(size, UprightSize)]


def _upright_sizes(images: Sequence[RawImage]) -> list[UprightSize | ImageError | None]:
    sizes: list[UprightSize | ImageError | None] = []
    for one in images:
        try:
            sizes.append(upright_size(one.path))
        except ImageError as error:
            sizes.append(error)
    return sizes


def _is_annotated_unrotated(image: RawImage, size: UprightSize) -> bool:
    """Whether an image that EXIF rotates by 90° was annotated without the rotation, so that its boxes are wrong."""
    return size.turned and size.width != size.height and image.size == (size.height, size.width)


def _wrong_sizes(images: Sequence[RawImage], sizes: Sequence[UprightSize]) -> list[str]:
    """Describe images whose annotated size is wrong for another reason than rotation."""
    wrong = [
        f"{one.path} ({one.size[0]} × {one.size[1]} instead of {size.width} × {size.height})"
        for one, size in zip(images, sizes, strict=True)
        if one.size is not None and one.size != (size.width, size.height) and not _is_annotated_unrotated(one, size)
    ]
    if not wrong:
        return []
    return [f"{len(wrong)} images have a wrong annotated size, such as {wrong[0]}: the actual size is used"]


def _examples(
    images: Sequence[RawImage], sizes: Sequence[tuple[int, int]], objects: NDArray[np.void], *, relative: bool
) -> tuple[tuple[Example, ...], list[str]]:
    """Assign valid objects to their images, and describe the invalid ones."""
    objects = objects[np.argsort(objects["image"], kind="stable")]
    limits = np.tile(np.array(sizes, dtype=np.float32), 2)[objects["image"]]
    boxes = (objects["box"] * limits if relative else objects["box"]).astype(np.float32)
    inside = boxes.clip(0, limits)
    finite = np.isfinite(boxes).all(1)
    good = finite & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    flat = finite & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    clipped = good & (np.abs(inside - boxes) > 0.5).any(1)
    problems = [
        f"{which.sum()} boxes {what}, such as in {images[objects['image'][which.argmax()]].path}: {done}"
        for what, done, which in (
            ("are not finite", "skipped", ~finite),
            ("have no width or height", "skipped", flat),
            ("are outside their image", "skipped", finite & ~good & ~flat),
            ("extend beyond their image", "clipped", clipped),
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
    return examples, problems


def _refuse(name: str, bad: Sequence[str], what: str, advice: str) -> None:
    if bad:
        raise DatasetError(f"{name}: {len(bad)} {what}, such as {bad[0]}; {advice}")
