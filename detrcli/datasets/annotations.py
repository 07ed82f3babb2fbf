"""Pictures and their objects, and what can be wrong with them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from .sizes import upright_size

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation", "test")}
"""What the parts of a data set may be called, the best first."""
TOGETHER = 256
"""Pictures that a thread looks at in turn."""


@dataclass(frozen=True, eq=False)
class Example:
    """One picture and its objects.

    Attributes:
        path: the picture file.
        identity: its id in COCO, or its place in the data set.
        width: pixels of the upright picture.
        height: the same.
        boxes: (N, 4) float32 as x1, y1, x2, y2 in pixels, inside the picture.
        labels: (N,) int64, indices into the data set's classes.
        areas: (N,) float32 as annotated, or the boxes' areas.
        crowd: (N,) bool, groups of objects (COCO's iscrowd): not learned from, and no fault if not found.
    """

    path: Path
    identity: int
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set.

    Attributes:
        name: what the user called it.
        classes: the name of each label.
        category_ids: the id of each label in COCO, or its number in YOLO.
        examples: the pictures.
        problems: a line each on what was wrong and what was done.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    examples: tuple[Example, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RawPicture:
    """A picture before it is looked at.

    Attributes:
        path: the picture file.
        identity: as in `Example`.
        size: width and height as annotated, or None where they are not.
    """

    path: Path
    identity: int
    size: tuple[int, int] | None = None


RAW_OBJECT = np.dtype(
    [("picture", np.int64), ("label", np.int64), ("box", np.float64, 4), ("area", np.float64), ("crowd", np.bool_)]
)
"""An object before it is checked: the place of its picture, its label, its box as x1, y1, x2, y2, its area, zero where
it is not annotated, and whether it is a crowd."""


def checked(
    name: str,
    classes: Sequence[str],
    ids: Sequence[int],
    pictures: Sequence[RawPicture],
    objects: NDArray[np.void],
    also: Iterable[str],
    *,
    part: str | None = None,
    relative: bool = False,
) -> Dataset:
    """Look at every picture's header and every box.

    Args:
        name: of the data set.
        classes: the name of each label, without spaces around it.
        ids: the id of each.
        pictures: all of them.
        objects: (N,) `RAW_OBJECT`, in any order.
        also: problems that are known already.
        part: which of `SPLITS` this is, if the data set has parts.
        relative: whether the boxes are relative to their pictures, and not in pixels.

    Raises:
        DatasetError: pictures are missing, cannot be read or have another size than annotated, there are none, no
            classes or no sound boxes, or classes have no name of their own.
    """
    if not pictures:
        raise DatasetError(f"{name}: the data set has no pictures")
    if not classes:
        raise DatasetError(f"{name}: the data set has no classes")
    blank = [str(identity) for identity, title in zip(ids, classes, strict=True) if not title]
    _refuse(name, blank, "classes have no name", "name them")
    twice = [title for title, count in Counter(classes).items() if count > 1]
    if twice:
        raise DatasetError(f"{name}: {len(twice)} class names stand twice, such as {twice[0]!r}; give each its own")
    sizes = _sizes(name, pictures)
    examples, faults = _examples(pictures, sizes, objects, relative=relative)
    problems = [*also, *faults]
    seen = {int(label) for example in examples for label in example.labels[~example.crowd]}
    if not seen:
        raise DatasetError(f"{name}: the data set has no objects{f' ({problems[0]})' if problems else ''}")
    idle = [repr(title) for label, title in enumerate(classes) if label not in seen]
    if idle:
        problems.append(f"{len(idle)} classes have no object: {', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}")
    if part == "test":
        problems.append("there is no val split, so the test split serves as one")
    return Dataset(name, tuple(classes), tuple(ids), examples, tuple(f"{name}: {line}" for line in problems))


def _sizes(name: str, pictures: Sequence[RawPicture]) -> list[tuple[int, int]]:
    """Width and height of every picture."""
    missing = [str(one.path) for one in pictures if not os.path.isfile(one.path)]
    _refuse(name, missing, "pictures are missing", "put them there")
    parts = [pictures[start : start + TOGETHER] for start in range(0, len(pictures), TOGETHER)]
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = [size for sizes in pool.map(_upright_sizes, parts) for size in sizes]
    unread = [str(one.path) for one, size in zip(pictures, found, strict=True) if size is None]
    _refuse(name, unread, "pictures cannot be read", "mend or remove them")
    sizes = [size for size in found if size is not None]
    _refuse(
        name,
        [
            f"{one.path} is {size[0]} × {size[1]}, annotated as {one.size[0]} × {one.size[1]}"
            for one, size in zip(pictures, sizes, strict=True)
            if one.size is not None and one.size != size
        ],
        "pictures have another size than their annotations say",
        "their boxes would be wrong, so annotate the upright pictures",
    )
    return sizes


def _upright_sizes(pictures: Sequence[RawPicture]) -> list[tuple[int, int] | None]:
    return [upright_size(one.path) for one in pictures]


def _examples(
    pictures: Sequence[RawPicture], sizes: Sequence[tuple[int, int]], objects: NDArray[np.void], *, relative: bool
) -> tuple[tuple[Example, ...], list[str]]:
    """The pictures with their sound objects, and what was wrong with the others."""
    objects = objects[np.argsort(objects["picture"], kind="stable")]
    limits = np.tile(np.array(sizes, dtype=np.float32), 2)[objects["picture"]]
    boxes = (objects["box"] * limits if relative else objects["box"]).astype(np.float32)
    inside = boxes.clip(0, limits)
    whole = np.isfinite(boxes).all(1)
    good = whole & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    flat = whole & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    clipped = good & (np.abs(inside - boxes) > 0.5).any(1)
    faults = [
        f"{which.sum()} boxes {what}, such as in {pictures[objects['picture'][which.argmax()]].path}: {done}"
        for what, done, which in (
            ("are no numbers", "left out", ~whole),
            ("have no width or no height", "left out", flat),
            ("lie outside their picture", "left out", whole & ~good & ~flat),
            ("reach beyond their picture", "cut off there", clipped),
        )
        if which.any()
    ]
    objects, boxes = objects[good], inside[good]
    annotated, actual = objects["area"], (boxes[:, 2:] - boxes[:, :2]).prod(1)
    labels, crowd = objects["label"].copy(), objects["crowd"].copy()
    areas = np.where(annotated > 0, annotated, actual).astype(np.float32)
    ends = np.searchsorted(objects["picture"], np.arange(len(pictures) + 1)).tolist()
    examples = tuple(
        Example(one.path, one.identity, *size, boxes[at:end], labels[at:end], areas[at:end], crowd[at:end])
        for one, size, (at, end) in zip(pictures, sizes, pairwise(ends), strict=True)
    )
    return examples, faults


def _refuse(name: str, bad: Sequence[str], what: str, advice: str) -> None:
    if bad:
        raise DatasetError(f"{name}: {len(bad)} {what}, such as {bad[0]}; {advice}")
