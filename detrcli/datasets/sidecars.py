"""Datasets with an annotation file per image: finding and reading the files."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ..errors import SplitError
from ..images.sources import SUFFIXES
from .annotations import RAW_OBJECT, SPLITS, Box, Dataset, RawImage, Split, build_dataset
from .reading import read_lines

LISTS = Path("ImageSets", "Main")
"""Folder of Pascal VOC's lists of the images in each split, by stem."""
IMAGES = ("", "../JPEGImages", "../images", "../Images")
"""Folders for images, relative to the folder of the annotations."""


class NamedObject(NamedTuple):
    """Object with the name of its class.

    Attributes:
        name: class name.
        box: x1, y1, x2, y2 in pixels.
        crowd: see `Example`.
    """

    name: str
    box: Box
    crowd: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """Contents of an annotation file.

    Attributes:
        image: path of the image according to the file.
        size: annotated width and height, or None.
        objects: the objects.
        ignored: number of shapes without a box, by kind.
    """

    image: str
    size: tuple[int, int] | None
    objects: Sequence[NamedObject]
    ignored: Counter[str]


class SplitFiles(NamedTuple):
    """Annotation files of a split.

    Attributes:
        path: path of the dataset.
        files: annotation files of the split.
        all_files: annotation files of all splits, which determine the classes.
        split_name: which name in `SPLITS` the split has, if the dataset has splits.
        missing: listed images that have no annotation file.
    """

    path: Path
    files: Sequence[Path]
    all_files: Sequence[Path]
    split_name: str | None = None
    missing: Sequence[str] = ()


def find_files(
    path: Path, split: Split, suffix: str, annotations: str, is_annotation: Callable[[Path], bool]
) -> SplitFiles | None:
    """Find the annotation files of a split; return None if there are none.

    They are in the folder or its subfolder `annotations`, or likewise in a folder for each split, or all together with
    lists of each split's images in ImageSets/Main. Hidden files are ignored.

    Args:
        path: folder, or a single file.
        split: split to find.
        suffix: suffix of annotation files.
        annotations: name of the subfolder for annotation files.
        is_annotation: whether a file is an annotation file; called for the first files of each folder.

    Raises:
        SplitError: there are splits, but not this one.
    """
    if path.is_file():
        known = path.suffix.lower() == suffix and is_annotation(path)
        return SplitFiles(path, [path], [path]) if known else None
    split_names = list(dict.fromkeys(name for names in SPLITS.values() for name in names))
    found: dict[str, list[Path]] = {}
    for name in ("", *split_names):
        for folder in (path / name, path / name / annotations):
            files = sorted(folder.glob(f"[!.]*{suffix}"))
            if files and any(map(is_annotation, files[:8])):
                found.setdefault(name, []).extend(files)
    all_files = [file for files in found.values() for file in files]
    if not all_files:
        return None
    if "" in found:
        lists = {file.stem: file for file in (path / LISTS).glob("*.txt") if file.stem in split_names}
        if not lists:
            return SplitFiles(path, found[""], all_files)
        split_name = _choose(path, split, list(lists))
        annotated = {file.stem for file in found[""]}
        listed = [line.strip() for line in read_lines(lists[split_name]) if line.strip()]
        stems = dict.fromkeys(line if line in annotated else line.split()[0] for line in listed)
        missing = [stem for stem in stems if stem not in annotated]
        files = [file for file in found[""] if file.stem in stems]
        return SplitFiles(path, files, all_files, split_name, missing)
    split_name = _choose(path, split, list(found))
    return SplitFiles(path, found[split_name], all_files, split_name)


def _choose(path: Path, split: Split, names: Sequence[str]) -> str:
    name = next((name for name in SPLITS[split] if name in names), None)
    if name is None:
        raise SplitError(f"{path} has no {split} split, only {' and '.join(sorted(names))}")
    return name


def read_files(split: SplitFiles, parse: Callable[[Path], AnnotatedImage | None], *, strict: bool) -> Dataset:
    """Read the annotation files of a split; class names are sorted to number the classes.

    Args:
        split: the files.
        parse: reads a file; returns None if it is not an annotation file.
        strict: see `build_dataset`.

    Raises:
        DatasetError: a file cannot be read, or see `build_dataset`.
    """
    chosen = set(split.files)
    names: set[str] = set()
    images: list[RawImage] = []
    objects: list[tuple[int, NamedObject]] = []
    ignored: Counter[str] = Counter()
    others: list[Path] = []
    stems: set[str] = set()
    for file in split.all_files:
        content = parse(file)
        if content is None:
            others += [file] * (file in chosen)
            continue
        stems |= {file.stem, PurePosixPath(content.image.replace("\\", "/")).stem}
        names.update(one.name for one in content.objects)
        if file in chosen:
            objects += ((len(images), one) for one in content.objects)
            images.append(RawImage(_image(file, content.image), len(images) + 1, content.size))
            ignored += content.ignored
    classes = sorted(names)
    labels = {name: label for label, name in enumerate(classes)}
    rows = [(index, labels[one.name], one.box, 0, one.crowd) for index, one in objects]
    problems = [f"{count} {kind} have no box: skipped" for kind, count in sorted(ignored.items())]
    unannotated = [] if split.path.is_file() else _unannotated([one.path for one in images], stems)
    problems += [
        f"{len(skipped)} {what}, such as {skipped[0]}: skipped"
        for what, skipped in (
            ("files are not annotations of an image", others),
            ("listed images have no annotation file", split.missing),
            ("images have no annotation file", unannotated),
        )
        if skipped
    ]
    name = f"{split.path} ({split.split_name})" if split.split_name else str(split.path)
    ids, table = range(1, len(classes) + 1), np.array(rows, RAW_OBJECT)
    return build_dataset(name, classes, ids, images, table, problems, split_name=split.split_name, strict=strict)


def _unannotated(images: Sequence[Path], stems: Set[str]) -> list[Path]:
    """List the images in the same folders whose stems have no annotation file."""
    folders = sorted({one.parent for one in images})
    beside = (path for folder in folders for path in sorted(folder.glob("[!.]*")))
    return [path for path in beside if path.suffix.lower() in SUFFIXES and path.stem not in stems]


def _image(file: Path, named: str) -> Path:
    """Locate the image of an annotation file: at the named path, or by its name or the file's stem in usual folders."""
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
