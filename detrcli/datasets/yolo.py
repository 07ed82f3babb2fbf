"""Datasets in YOLO's format: a description, images, and a text file of boxes for each.

The description is a YAML file, Darknet's `obj.data`, or nothing but a list of class names.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import DatasetError, SplitError
from ..files import open_file, read_file
from ..images.sources import Sources, read_list
from .annotations import RAW_OBJECT, SPLITS, Dataset, RawImage, Split, checked
from .sniff import head_matches

NAME_LISTS = ("classes.txt", "obj.names")
"""Files of class names, one a line, that describe a dataset where there is no YAML file."""
DARKNET = "obj.data"


@dataclass(frozen=True)
class _Description:
    """A YOLO dataset before its images are looked for.

    Attributes:
        file: that says so.
        ids: number of each class.
        classes: name of each class.
        root: folder that entries are relative to.
        splits: for each split, its key and folders or lists of images.
        keypoints: numbers that a label has for its keypoints.
    """

    file: Path
    ids: list[int]
    classes: list[str]
    root: Path
    splits: Mapping[str, Any]
    keypoints: int = 0


def find_yolo(place: Path) -> Path | None:
    """The file that describes a dataset, or None if there is none.

    Raises:
        DatasetError: a folder holds several, and no way to choose.
    """
    if place.is_file():
        known = place.suffix.lower() in (".yaml", ".yml") or place.name in (*NAME_LISTS, DARKNET)
        return place if known else None
    files = [path for path in sorted(place.glob("*.y*ml")) if path.suffix in (".yaml", ".yml") and _has_names(path)]
    named = [path for path in files if path.stem in ("data", "dataset")] or files
    if len(named) > 1:
        raise DatasetError(f"{place} holds {named[0].name} and {named[1].name}; name the one that describes the data")
    return named[0] if named else _first_of(place, (DARKNET,))


def find_name_list(place: Path) -> Path | None:
    """A list of class names that describes a dataset where nothing else does, or None if there is none."""
    return _first_of(place, NAME_LISTS)


def _first_of(place: Path, names: Sequence[str]) -> Path | None:
    return next((path for path in (place / name for name in names) if path.is_file()), None)


def _has_names(file: Path) -> bool:
    """Whether it could describe a dataset, for all kinds of programs are configured in YAML."""
    if file.stem in ("data", "dataset"):
        return True
    return head_matches(file, rb"(?m)^names\s*:")


def read_yolo(file: Path, split: Split, *, strict: bool = False) -> Dataset:
    """Read one split of a YOLO dataset; `strict` is as of `checked`.

    Raises:
        DatasetError: it is not such a file, has no such split, has another number of classes than it says, a label file
            has lines that are no boxes or are of classes without a name, or see `checked`.
    """
    described = _described(file)
    key = next((key for key in SPLITS[split] if described.splits.get(key)), None)
    if key is None:
        raise SplitError(f"{file} has no {split} split; say where its images are in a line “{split}: …”")
    known = {number: label for label, number in enumerate(described.ids)}
    paths = sorted(set(_images(described, described.splits[key])))
    labels = [_label_file(path) for path in paths]
    noted = _Noted()
    found = (
        (place, *one, 0, False)
        for place, label_file in enumerate(labels)
        for one in _objects(label_file, known, described.keypoints, noted)
    )
    objects = np.fromiter(found, RAW_OBJECT)
    bare = bool(paths) and not len(objects)
    also = [f"labels were looked for in files such as {labels[0]}"] if bare else noted.as_problems()
    unlabelled = [path for path, label_file in zip(paths, labels, strict=True) if not os.path.isfile(label_file)]
    if unlabelled and not bare:
        also.append(
            f"{len(unlabelled)} of {len(paths)} images have no label file, such as {unlabelled[0]}: "
            "taken for images without objects"
        )
    images = [RawImage(path, number) for number, path in enumerate(paths, start=1)]
    data = checked(
        f"{file} ({key})",
        described.classes,
        described.ids,
        images,
        objects,
        also,
        part=key,
        relative=True,
        strict=strict,
    )
    shift = int(0 in described.ids)  # as `detr predict` numbers categories, whose 0 many readers take for background
    return replace(data, category_ids=tuple(number + shift for number in data.category_ids))


def _described(file: Path) -> _Description:
    if file.name in NAME_LISTS:
        by_folder = _splits_by_folder(file.parent) or dict.fromkeys(SPLITS, ".")
        return _Description(file, *_listed_names(file), file.parent, by_folder)
    if file.name == DARKNET:
        settings = dict(line.partition("=")[::2] for line in _lines(file) if "=" in line)
        content = {key.strip(): value.strip() for key, value in settings.items()}
        if "names" not in content:
            raise DatasetError(f"{file} is not a Darknet dataset: it names no file of class names")
        names = _existing(file, _darknet_places(file, content["names"]))
        return _Description(file, *_listed_names(names), file.parent, content)
    content = _yaml(file)
    ids, classes = _classes(file, content["names"])
    if content.get("nc") and content["nc"] != str(len(classes)):
        raise DatasetError(f"{file}: nc is {content['nc']}, but names are {len(classes)}; correct one of them")
    splits = content if any(content.get(key) for keys in SPLITS.values() for key in keys) else None
    root = file.parent / str(content.get("path") or "")
    return _Description(file, ids, classes, root, splits or _splits_by_folder(root), _keypoints(file, content))


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_file(file), yaml.BaseLoader)  # noqa: S506 (makes nothing but text: a class may be called "no")
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{file} is no YOLO dataset: it has no names")
    return content


def _classes(file: Path, names: Any) -> tuple[list[int], list[str]]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        classes = {int(number): name.strip() for number, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise DatasetError(f"{file}: names is neither a list nor numbers with their names") from error
    return sorted(classes), [classes[number] for number in sorted(classes)]


def _listed_names(file: Path) -> tuple[list[int], list[str]]:
    names = [line.strip() for line in _lines(file)]
    while names and not names[-1]:
        names.pop()
    return list(range(len(names))), names


def _keypoints(file: Path, content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    if not shape:
        return 0
    try:
        count, numbers = map(int, shape if isinstance(shape, list) else ())
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{file}: kpt_shape is not [number of keypoints, 2 or 3], but {shape!r}") from error
    return count * numbers


def _splits_by_folder(root: Path) -> dict[str, str]:
    """The splits of a dataset that does not name them: by its folders, else all that is in `images` for each."""
    names = [name for names in SPLITS.values() for name in names]
    splits = {name: f"images/{name}" for name in names if (root / "images" / name).is_dir()}
    splits |= {name: f"{name}/images" for name in names if (root / name / "images").is_dir()}
    return splits or (dict.fromkeys(SPLITS, "images") if (root / "images").is_dir() else {})


def _images(described: _Description, entries: Any) -> Iterator[Path]:
    root, folder = described.root, described.file.parent
    for entry in map(str, entries if isinstance(entries, list) else [entries]):
        places = [root / entry, folder / entry, folder / entry.lstrip("./")]
        if described.file.name == DARKNET:
            places += _darknet_places(described.file, entry)
        place = _existing(described.file, places)
        if place.is_dir():
            yield from (Path(image.path) for image in Sources((str(place),), recursive=True))
        else:
            yield from _listed(place, root)


def _darknet_places(file: Path, entry: str) -> list[Path]:
    """Where a file may be that Darknet looks for below its own folder, which holds the dataset as `data`."""
    return [file.parent / entry, file.parent / entry.removeprefix("data/")]


def _existing(file: Path, places: list[Path]) -> Path:
    for place in places:
        if os.path.exists(place):
            return place
    raise DatasetError(f"{file} names {places[0]}, which is not there; correct its “path” or the name")


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """The images of a list, whose names may be relative to it or to the dataset."""
    try:
        with open_file(file) as lines:
            names = [name.strip() for name in read_list(lines)]
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    if any("\0" in name for name in names):
        raise DatasetError(f"{file} is no list of images; name a folder, or a text file with one path a line")
    for name in filter(None, names):
        beside, darknet = file.parent / name, file.parent / name.removeprefix("data/")
        yield next((path for path in (beside, root / name, darknet) if os.path.isfile(path)), beside)


@dataclass
class _Noted:
    """What is told of label files as a whole.

    Attributes:
        repeated: files with lines that stand twice, and how many.
        fifth: files with a number behind the box, and how many lines have one.
    """

    repeated: Counter[Path] = field(default_factory=Counter)
    fifth: Counter[Path] = field(default_factory=Counter)

    def as_problems(self) -> list[str]:
        return [
            f"{counted.total()} label lines {what}, such as in {next(iter(counted))}: {done}"
            for what, done, counted in (
                ("stand twice", "taken once", self.repeated),
                ("have a track id or a confidence behind the box", "ignored", self.fifth),
            )
            if counted
        ]


def _objects(
    file: Path, known: Mapping[int, int], keypoints: int, noted: _Noted
) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Label and box of each object of a label file.

    Args:
        file: lines of a class and a box (center, width and height), a box and keypoints, or a polygon.
        known: the label of each class number.
        keypoints: numbers that each line has for its keypoints.
        noted: is told what was left out.
    """
    seen = set[tuple[str, ...]]()
    for place, line in enumerate(_lines(file), start=1):
        words = tuple(line.split())
        if not words:
            continue
        if words in seen:
            noted.repeated[file] += 1
            continue
        seen.add(words)
        try:
            number, *values = map(float, words)
        except ValueError as error:
            raise DatasetError(f"{file}, line {place} is no YOLO label: {error}") from error
        if number not in known:
            raise DatasetError(f"{file}, line {place}: class {number:g} has no name in the dataset's YAML file")
        if len(values) == 5:
            noted.fifth[file] += 1
        if len(values) in (4, 5) or (keypoints and len(values) == 4 + keypoints):
            x, y, width, height = values[:4]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif not keypoints and len(values) >= 6 and len(values) % 2 == 0:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            wanted = f"box and {keypoints} numbers of keypoints" if keypoints else "box nor the points of a polygon"
            raise DatasetError(
                f"{file}, line {place} is no YOLO label: after the class stand neither the four numbers of a {wanted}, "
                f"but {len(values)} numbers{'' if keypoints else '; keypoints need a kpt_shape in the YAML file'}"
            )
        yield known[int(number)], box


def _lines(file: Path) -> list[str]:
    try:
        return read_file(file).decode("utf-8-sig").splitlines() if os.path.isfile(file) else []
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{file} is no YOLO label file: it is no text") from error


def _label_file(image: Path) -> Path:
    """Below `labels` where the image is below `images`, or else beside it."""
    beside, parts = image.with_suffix(".txt"), list(image.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    below = Path(*parts).with_suffix(".txt")
    return beside if os.path.isfile(beside) and not os.path.isfile(below) else below
