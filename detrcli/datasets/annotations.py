"""Pictures and their objects, and what can be wrong with them."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from .sizes import upright_size


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


@dataclass(frozen=True, eq=False)
class RawObjects:
    """A picture's annotations before they are checked.

    Attributes:
        path: the picture file.
        identity: as in `Example`.
        boxes: (N, 4) as x1, y1, x2, y2, in pixels, or relative to the picture.
        labels: (N,).
        areas: (N,), zero where not annotated.
        crowd: (N,).
        size: width and height as annotated, or None where they are not.
        relative: whether the boxes are relative to the picture.
    """

    path: Path
    identity: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None = None
    relative: bool = False


def checked(
    name: str, classes: Sequence[str], ids: Sequence[int], raw: Iterable[RawObjects], also: Iterable[str]
) -> Dataset:
    """Look at every picture's header and every box.

    Args:
        name: of the data set.
        classes: the name of each label.
        ids: the id of each.
        raw: the annotations.
        also: problems that are known already.

    Raises:
        DatasetError: pictures are missing, cannot be read or have another size than annotated, there are none, no
            classes or no sound boxes, or classes have no name of their own.
    """
    raw = list(raw)
    if not raw:
        raise DatasetError(f"{name}: the data set has no pictures")
    if not classes:
        raise DatasetError(f"{name}: the data set has no classes")
    blank = [str(identity) for identity, title in zip(ids, classes, strict=True) if not title.strip()]
    _refuse(name, blank, "classes have no name", "name them")
    twice = [title for title, count in Counter(title.strip() for title in classes).items() if count > 1]
    if twice:
        raise DatasetError(f"{name}: {len(twice)} class names stand twice, such as {twice[0]!r}; give each its own")
    missing = [str(one.path) for one in raw if not os.path.isfile(one.path)]
    _refuse(name, missing, "pictures are missing", "put them there")
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        sizes = list(pool.map(upright_size, (one.path for one in raw)))
    _refuse(
        name,
        [str(one.path) for one, size in zip(raw, sizes, strict=True) if size is None],
        "pictures cannot be read",
        "mend or remove them",
    )
    found = [(one, size) for one, size in zip(raw, sizes, strict=True) if size is not None]
    _refuse(
        name,
        [
            f"{one.path} is {size[0]} × {size[1]}, annotated as {one.size[0]} × {one.size[1]}"
            for one, size in found
            if one.size is not None and one.size != size
        ],
        "pictures have another size than their annotations say",
        "their boxes would be wrong, so annotate the upright pictures",
    )
    faults: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
    examples = tuple(_example(one, size, faults) for one, size in found)
    problems = [
        *also,
        *(f"{len(paths)} boxes {what}, such as in {paths[0]}: {done}" for (what, done), paths in faults.items()),
    ]
    seen = {int(label) for example in examples for label in example.labels[~example.crowd]}
    if not seen:
        raise DatasetError(f"{name}: the data set has no objects{f' ({problems[0]})' if problems else ''}")
    idle = [repr(title) for label, title in enumerate(classes) if label not in seen]
    if idle:
        problems.append(f"{len(idle)} classes have no object: {', '.join(idle[:5])}{', …' if len(idle) > 5 else ''}")
    return Dataset(name, tuple(classes), tuple(ids), examples, tuple(f"{name}: {line}" for line in problems))


def _example(raw: RawObjects, size: tuple[int, int], faults: Mapping[tuple[str, str], list[Path]]) -> Example:
    width, height = size
    limits = np.array([width, height, width, height], dtype=np.float32)
    boxes = (raw.boxes * limits if raw.relative else raw.boxes).astype(np.float32)
    inside = boxes.clip(0, limits)
    whole = np.isfinite(boxes).all(1)
    good = whole & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    flat = whole & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    clipped = good & (np.abs(inside - boxes) > 0.5).any(1)
    for what, done, which in (
        ("are no numbers", "left out", ~whole),
        ("have no width or no height", "left out", flat),
        ("lie outside their picture", "left out", whole & ~good & ~flat),
        ("reach beyond their picture", "cut off there", clipped),
    ):
        if which.any():
            faults[what, done].extend([raw.path] * int(which.sum()))
    sides = inside[:, 2:] - inside[:, :2]
    areas = np.where(raw.areas > 0, raw.areas, sides.prod(1))
    return Example(
        raw.path,
        raw.identity,
        width,
        height,
        inside[good],
        raw.labels[good],
        areas[good].astype(np.float32),
        raw.crowd[good],
    )


def _refuse(name: str, bad: Sequence[str], what: str, advice: str) -> None:
    if bad:
        raise DatasetError(f"{name}: {len(bad)} {what}, such as {bad[0]}; {advice}")
