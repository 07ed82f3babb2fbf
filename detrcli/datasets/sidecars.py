"""Datasets with a file of annotations for each image: where the files are, and what they have in common."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ..errors import DatasetError, SplitError
from ..files import read_file
from ..images.sources import SUFFIXES
from .annotations import RAW_OBJECT, SPLITS, Box, Dataset, RawImage, Split, checked

LISTS = Path("ImageSets", "Main")
"""Where Pascal VOC lists the images of each split, by stem."""
IMAGES = ("", "../JPEGImages", "../images", "../Images")
"""Folders in which images may lie, from that of the annotations."""


class NamedObject(NamedTuple):
    """An object, by the name of its class.

    Attributes:
        name: of its class.
        box: x1, y1, x2, y2 in pixels.
        crowd: as in `Example`.
    """

    name: str
    box: Box
    crowd: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """The contents of an annotation file.

    Attributes:
        image: path of the image as the file has it.
        size: width and height as annotated, or None.
        objects: its objects.
        ignored: of each kind of shape that is no box, how many there are.
    """

    image: str
    size: tuple[int, int] | None
    objects: Sequence[NamedObject]
    ignored: Counter[str]


class SplitFiles(NamedTuple):
    """Where a split is.

    Attributes:
        place: what the user named.
        files: its annotation files.
        every: those of all splits, which decide on the classes.
        part: which of `SPLITS` it is, if the dataset has parts.
        missing: images that a list names but that have no annotation file.
    """

    place: Path
    files: Sequence[Path]
    every: Sequence[Path]
    part: str | None = None
    missing: Sequence[str] = ()


def find_files(
    place: Path, split: Split, suffix: str, annotations: str, is_one: Callable[[Path], bool]
) -> SplitFiles | None:
    """The annotation files of a split, or None if there are none.

    They lie in the folder or in one below it called `annotations`; in folders named after the splits, likewise; or all
    together with lists of each split's images in ImageSets/Main. Hidden files do not count.

    Args:
        place: a folder, or a single file.
        split: which part.
        suffix: of annotation files.
        annotations: name of the folder for them.
        is_one: whether a file is an annotation file; asked of the first in each folder.

    Raises:
        SplitError: there are splits, but not this one.
    """
    if place.is_file():
        return SplitFiles(place, [place], [place]) if place.suffix.lower() == suffix and is_one(place) else None
    parts = [name for names in SPLITS.values() for name in names]
    found: dict[str, list[Path]] = {}
    for part in ("", *dict.fromkeys(parts)):
        for folder in (place / part, place / part / annotations):
            files = sorted(folder.glob(f"[!.]*{suffix}"))
            if files and any(map(is_one, files[:8])):
                found.setdefault(part, []).extend(files)
    every = [file for files in found.values() for file in files]
    if not every:
        return None
    if "" in found:
        lists = {path.stem: path for path in (place / LISTS).glob("*.txt") if path.stem in parts}
        if not lists:
            return SplitFiles(place, found[""], every)
        part = _part(place, split, list(lists))
        known = {file.stem for file in found[""]}
        listed = [line.strip() for line in _lines(lists[part]) if line.strip()]
        stems = dict.fromkeys(name if name in known else name.split()[0] for name in listed)
        missing = [stem for stem in stems if stem not in known]
        return SplitFiles(place, [file for file in found[""] if file.stem in stems], every, part, missing)
    part = _part(place, split, list(found))
    return SplitFiles(place, found[part], every, part)


def _part(place: Path, split: Split, parts: Sequence[str]) -> str:
    part = next((name for name in SPLITS[split] if name in parts), None)
    if part is None:
        raise SplitError(f"{place} has no {split} split, only {' and '.join(sorted(parts))}")
    return part


def _lines(file: Path) -> list[str]:
    try:
        return read_file(file).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def read_files(split: SplitFiles, parse: Callable[[Path], AnnotatedImage | None], *, strict: bool) -> Dataset:
    """Read the annotation files of a split; classes are numbered in the order of their names.

    Args:
        split: the files.
        parse: reads one; None for a file of something else.
        strict: as of `checked`.

    Raises:
        DatasetError: a file cannot be read, or see `checked`.
    """
    chosen = set(split.files)
    names: set[str] = set()
    images: list[RawImage] = []
    objects: list[tuple[int, NamedObject]] = []
    ignored: Counter[str] = Counter()
    strange: list[Path] = []
    stems: set[str] = set()
    for file in split.every:
        content = parse(file)
        if content is None:
            strange += [file] * (file in chosen)
            continue
        stems |= {file.stem, PurePosixPath(content.image.replace("\\", "/")).stem}
        names.update(one.name for one in content.objects)
        if file in chosen:
            objects += ((len(images), one) for one in content.objects)
            images.append(RawImage(_image(file, content.image), len(images) + 1, content.size))
            ignored += content.ignored
    classes = sorted(names)
    labels = {name: label for label, name in enumerate(classes)}
    rows = [(place, labels[one.name], one.box, 0, one.crowd) for place, one in objects]
    problems = [f"{count} {kind} have no box: left out" for kind, count in sorted(ignored.items())]
    unannotated = [] if split.place.is_file() else _others_beside([one.path for one in images], stems)
    problems += [
        f"{len(left_out)} {what}, such as {left_out[0]}: left out"
        for what, left_out in (
            ("files are not annotations of an image", strange),
            ("listed images have no annotation file", split.missing),
            ("images have no annotation file", unannotated),
        )
        if left_out
    ]
    name = f"{split.place} ({split.part})" if split.part else str(split.place)
    return checked(
        name,
        classes,
        range(1, len(classes) + 1),
        images,
        np.array(rows, RAW_OBJECT),
        problems,
        part=split.part,
        strict=strict,
    )


def _others_beside(images: Sequence[Path], stems: Set[str]) -> list[Path]:
    """The images in the same folders that no annotation file is for, by what is before the ending of their names."""
    folders = sorted({one.parent for one in images})
    beside = (path for folder in folders for path in sorted(folder.glob("[!.]*")))
    return [path for path in beside if path.suffix.lower() in SUFFIXES and path.stem not in stems]


def _image(file: Path, named: str) -> Path:
    """Where an annotation file's image is: where it says, or by its name or the file's stem in the usual folders."""
    name = named.replace("\\", "/")
    folders = [Path(os.path.normpath(file.parent / folder)) for folder in IMAGES]
    candidates = [file.parent / name, *(folder / os.path.basename(name) for folder in folders if name)]
    found = next((path for path in candidates if os.path.isfile(path)), None)
    return found or next(_with_stem(folders, file.stem), candidates[0] if name else file.with_suffix(".jpg"))


def _with_stem(folders: Sequence[Path], stem: str) -> Iterator[Path]:
    for folder in folders:
        for suffix in sorted(SUFFIXES):
            if os.path.isfile(path := folder / f"{stem}{suffix}"):
                yield path
