"""Data sets in YOLO's format: a YAML file, pictures, and a text file of boxes for each."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from ..errors import DatasetError, SplitError
from ..files import open_file, read_file
from ..images.sources import Sources, read_list
from .annotations import RAW_OBJECT, SPLITS, Dataset, RawPicture, checked


def find_yolo(place: Path) -> Path | None:
    """The YAML file of a data set, or None if there is none.

    Raises:
        DatasetError: a folder holds several, and no way to choose.
    """
    if place.is_file():
        return place if place.suffix.lower() in (".yaml", ".yml") else None
    files = [path for path in sorted(place.glob("*.y*ml")) if path.suffix in (".yaml", ".yml") and _has_names(path)]
    named = [path for path in files if path.stem in ("data", "dataset")] or files
    if len(named) > 1:
        raise DatasetError(f"{place} holds {named[0].name} and {named[1].name}; name the one that describes the data")
    return named[0] if named else None


def _has_names(file: Path) -> bool:
    """Whether it could describe a data set, for all kinds of programs are configured in YAML."""
    if file.stem in ("data", "dataset"):
        return True
    return file.is_file() and re.search(rb"^names\s*:", file.read_bytes(), re.MULTILINE) is not None


def read_yolo(file: Path, split: Literal["train", "val"]) -> Dataset:
    """Read one split of a YOLO data set.

    Raises:
        DatasetError: it is not such a file, has no such split, has another number of classes than it says, a label file
            has lines that are no boxes or are of classes without a name, or see `checked`.
    """
    try:
        content = yaml.load(read_file(file), yaml.BaseLoader)  # noqa: S506 (makes nothing but text: a class may be called "no")
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{file} is no YOLO data set: it has no names")
    ids, classes = _classes(file, content["names"])
    if content.get("nc") and content["nc"] != str(len(classes)):
        raise DatasetError(f"{file}: nc is {content['nc']}, but names are {len(classes)}; correct one of them")
    key = next((key for key in SPLITS[split] if content.get(key)), None)
    if key is None:
        raise SplitError(f"{file} has no {split} split; say where its pictures are in a line “{split}: …”")
    known = {number: label for label, number in enumerate(ids)}
    paths = sorted(set(_pictures(file, content, content[key])))
    found = ((place, *one, 0, False) for place, path in enumerate(paths) for one in _objects(path, known))
    objects = np.fromiter(found, RAW_OBJECT)
    bare = bool(paths) and not len(objects)
    also = [f"labels were looked for in files such as {_label_file(paths[0])}"] if bare else []
    unlabelled = [path for path in paths if not os.path.isfile(_label_file(path))]
    if unlabelled and not bare:
        also.append(
            f"{len(unlabelled)} of {len(paths)} pictures have no label file, such as {unlabelled[0]}: "
            "taken for pictures without objects"
        )
    pictures = [RawPicture(path, place) for place, path in enumerate(paths)]
    return checked(f"{file} ({key})", classes, ids, pictures, objects, also, part=key, relative=True)


def _classes(file: Path, names: Any) -> tuple[list[int], list[str]]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        classes = {int(number): name.strip() for number, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise DatasetError(f"{file}: names is neither a list nor numbers with their names") from error
    return sorted(classes), [classes[number] for number in sorted(classes)]


def _pictures(file: Path, content: dict[str, Any], entries: Any) -> Iterator[Path]:
    root = file.parent / str(content.get("path") or "")
    for entry in entries if isinstance(entries, list) else [entries]:
        place = _existing(file, [root / str(entry), file.parent / str(entry), file.parent / str(entry).lstrip("./")])
        if place.is_dir():
            yield from (Path(picture.path) for picture in Sources((str(place),), recursive=True))
        else:
            yield from _listed(place, root)


def _existing(file: Path, places: list[Path]) -> Path:
    for place in places:
        if os.path.exists(place):
            return place
    raise DatasetError(f"{file} names {places[0]}, which is not there; correct its “path” or the name")


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """The pictures of a list, whose names may be relative to it or to the data set."""
    try:
        with open_file(file) as lines:
            names = [name.strip() for name in read_list(lines)]
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    if any("\0" in name for name in names):
        raise DatasetError(f"{file} is no list of pictures; name a folder, or a text file with one path a line")
    for name in filter(None, names):
        beside = file.parent / name
        yield root / name if os.path.isfile(root / name) and not os.path.isfile(beside) else beside


def _objects(picture: Path, known: dict[int, int]) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Label and box of each object of a picture."""
    file = _label_file(picture)
    for place, line in enumerate(_lines(file), start=1):
        if not line.split():
            continue
        try:
            number, *values = map(float, line.split())
        except ValueError as error:
            raise DatasetError(f"{file}, line {place} is no YOLO label: {error}") from error
        if number not in known:
            raise DatasetError(f"{file}, line {place}: class {number:g} has no name in the data set's YAML file")
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            raise DatasetError(
                f"{file}, line {place} is no YOLO label: after the class stand neither the four numbers of a box "
                f"nor the points of a polygon, but {len(values)} numbers"
            )
        yield known[int(number)], box


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines() if os.path.isfile(file) else []
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{file} is no YOLO label file: it is no text") from error


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")
