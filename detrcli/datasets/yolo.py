"""Datasets in YOLO's format: a description, images, and a text file of boxes for each image.

The description is a YAML file, Darknet's `obj.data`, or only a list of class names.
"""

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import DatasetError, SplitError, one_line
from ..images.sources import Sources, read_list
from .annotations import RAW_OBJECT, SPLITS, Dataset, RawImage, Split, build_dataset
from .reading import head_matches, read_bytes, read_lines

NAME_LISTS = ("classes.txt", "obj.names")
"""Files with one class name per line, which describe a dataset without a YAML file."""
DARKNET = "obj.data"


@dataclass(frozen=True)
class _Description:
    """Description of a YOLO dataset: the number and name of each class, and folders or lists of images by split.

    Paths are relative to `root`, and a label has as many numbers for keypoints as `keypoints` says.
    """

    file: Path
    ids: list[int]
    classes: list[str]
    root: Path
    splits: Mapping[str, Any]
    keypoints: int = 0


def find_yolo(path: Path) -> Path | None:
    """Find the file that describes a dataset; return None if there is none.

    Raises:
        DatasetError: the folder contains several.
    """
    if path.is_file():
        known = path.suffix.lower() in (".yaml", ".yml") or path.name in (*NAME_LISTS, DARKNET)
        return path if known else None
    files = [file for file in sorted(path.glob("*.y*ml")) if file.suffix in (".yaml", ".yml") and _has_names(file)]
    files = [file for file in files if file.stem in ("data", "dataset")] or files
    if len(files) > 1:
        raise DatasetError(
            f"{path} contains {files[0].name} and {files[1].name}; specify the one that describes the dataset"
        )
    return files[0] if files else _first_file(path, (DARKNET,))


def find_name_list(path: Path) -> Path | None:
    """Find a list of class names, which describes a dataset without another description."""
    return _first_file(path, NAME_LISTS)


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((path for path in (folder / name for name in names) if path.is_file()), None)


def _has_names(file: Path) -> bool:
    """Whether a YAML file may describe a dataset, instead of configuring some other program."""
    return file.stem in ("data", "dataset") or head_matches(file, rb"(?m)^names\s*:")


def read_yolo(file: Path, split: Split, *, strict: bool = False) -> Dataset:
    """Read one split of a YOLO dataset; see `build_dataset` for `strict`.

    Raises:
        DatasetError: the file is not a description of a dataset, has no such split or a wrong number of classes; a line
            of a label file is not a box or has an unknown class; or see `build_dataset`.
    """
    description = _read_description(file)
    split_name = next((name for name in SPLITS[split] if description.splits.get(name)), None)
    if split_name is None:
        raise SplitError(f"{file} has no {split} split; add a line “{split}: …” with the location of its images")
    labels = {number: label for label, number in enumerate(description.ids)}
    paths = sorted(set(_images(description, description.splits[split_name])))
    label_files = [_label_file(path) for path in paths]
    oddities = _Oddities()
    rows = (
        (index, *label_and_box, 0, False)
        for index, label_file in enumerate(label_files)
        for label_and_box in _objects(label_file, labels, description.keypoints, oddities)
    )
    objects = np.fromiter(rows, RAW_OBJECT)
    if paths and not len(objects):
        problems = [f"labels were expected in files such as {label_files[0]}"]
    else:
        problems = oddities.as_problems()
        unlabeled = [
            path for path, label_file in zip(paths, label_files, strict=True) if not os.path.isfile(label_file)
        ]
        if unlabeled:
            problems.append(
                f"{len(unlabeled)} of {len(paths)} images have no label file, such as {unlabeled[0]}: "
                "treated as images without objects"
            )
    images = [RawImage(path, number) for number, path in enumerate(paths, start=1)]
    data = build_dataset(
        f"{file} ({split_name})",
        description.classes,
        description.ids,
        images,
        objects,
        problems,
        split_name=split_name,
        relative=True,
        strict=strict,
    )
    shift = int(0 in description.ids)  # as in the COCO output format, because many readers take 0 for the background
    return replace(data, category_ids=tuple(number + shift for number in data.category_ids))


def _read_description(file: Path) -> _Description:
    if file.name in NAME_LISTS:
        by_folder = _splits_by_folder(file.parent) or dict.fromkeys(SPLITS, ".")
        return _Description(file, *_listed_names(file), file.parent, by_folder)
    if file.name == DARKNET:
        settings = dict(line.partition("=")[::2] for line in read_lines(file) if "=" in line)
        content = {key.strip(): value.strip() for key, value in settings.items()}
        if "names" not in content:
            raise DatasetError(f"{file} is not a Darknet dataset: it does not name a file of class names")
        names = _existing(file, _darknet_paths(file, content["names"]))
        return _Description(file, *_listed_names(names), file.parent, content)
    content = _yaml(file)
    ids, classes = _classes(file, content["names"])
    if content.get("nc") and content["nc"] != str(len(classes)):
        raise DatasetError(f"{file}: nc is {content['nc']}, but there are {len(classes)} names; correct one of them")
    splits = content if any(content.get(key) for keys in SPLITS.values() for key in keys) else None
    root = file.parent / str(content.get("path") or "")
    return _Description(file, ids, classes, root, splits or _splits_by_folder(root), _keypoints(file, content))


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_bytes(file), yaml.BaseLoader)  # noqa: S506 (loads only strings: a class may be called "no")
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{file} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{file} is not a YOLO dataset: it has no names")
    return content


def _classes(file: Path, names: Any) -> tuple[list[int], list[str]]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        classes = {int(number): name.strip() for number, name in names.items()}
    except (AttributeError, ValueError) as error:
        raise DatasetError(f"{file}: names is neither a list nor a mapping from numbers to names") from error
    return sorted(classes), [classes[number] for number in sorted(classes)]


def _listed_names(file: Path) -> tuple[list[int], list[str]]:
    names = [line.strip() for line in read_lines(file)]
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
    """Find the splits of a dataset that does not list them: folders of their names, or else `images` for each split."""
    names = [name for names in SPLITS.values() for name in names]
    splits = {name: f"images/{name}" for name in names if (root / "images" / name).is_dir()}
    splits |= {name: f"{name}/images" for name in names if (root / name / "images").is_dir()}
    return splits or (dict.fromkeys(SPLITS, "images") if (root / "images").is_dir() else {})


def _images(description: _Description, entries: Any) -> Iterator[Path]:
    root, folder = description.root, description.file.parent
    for entry in map(str, entries if isinstance(entries, list) else [entries]):
        candidates = [root / entry, folder / entry, folder / entry.lstrip("./")]
        if description.file.name == DARKNET:
            candidates += _darknet_paths(description.file, entry)
        path = _existing(description.file, candidates)
        if path.is_dir():
            yield from (Path(image.path) for image in Sources((str(path),), recursive=True))
        else:
            yield from _listed(path, root)


def _darknet_paths(file: Path, entry: str) -> list[Path]:
    """Candidates for a path that is relative to Darknet's folder, where the dataset is in `data`."""
    return [file.parent / entry, file.parent / entry.removeprefix("data/")]


def _existing(file: Path, candidates: list[Path]) -> Path:
    for path in candidates:
        if os.path.exists(path):
            return path
    raise DatasetError(f"{file} names {candidates[0]}, which does not exist; correct its “path” or the name")


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """Yield the images in a list, whose paths may be relative to the list or to the dataset."""
    names = [name.strip() for name in read_list(io.BytesIO(read_bytes(file)))]
    if any("\0" in name for name in names):
        raise DatasetError(f"{file} is not a list of images; name a folder, or a text file with one path per line")
    for name in filter(None, names):
        beside, darknet = file.parent / name, file.parent / name.removeprefix("data/")
        yield next((path for path in (beside, root / name, darknet) if os.path.isfile(path)), beside)


@dataclass
class _Oddities:
    """Number of duplicate lines, and of lines with a number after the box, by file."""

    repeated: Counter[Path] = field(default_factory=Counter)
    fifth: Counter[Path] = field(default_factory=Counter)

    def as_problems(self) -> list[str]:
        return [
            f"{counted.total()} label lines {what}, such as in {next(iter(counted))}: {done}"
            for what, done, counted in (
                ("are duplicates", "skipped", self.repeated),
                ("have a track id or a confidence after the box", "ignored", self.fifth),
            )
            if counted
        ]


def _objects(
    file: Path, labels: Mapping[int, int], keypoints: int, oddities: _Oddities
) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Yield the label and the box of each object in a label file, and count odd lines.

    Lines have a class number and a box (center, width and height), a box and `keypoints` numbers, or a polygon.
    """
    seen = set[tuple[str, ...]]()
    for line_number, line in enumerate(read_lines(file) if os.path.isfile(file) else [], start=1):
        words = tuple(line.split())
        if not words:
            continue
        if words in seen:
            oddities.repeated[file] += 1
            continue
        seen.add(words)
        try:
            number, *values = map(float, words)
        except ValueError as error:
            raise DatasetError(f"{file}, line {line_number} is not a YOLO label: {error}") from error
        if number not in labels:
            raise DatasetError(f"{file}, line {line_number}: class {number:g} has no name in the dataset's YAML file")
        if len(values) == 5:
            oddities.fifth[file] += 1
        if len(values) in (4, 5) or (keypoints and len(values) == 4 + keypoints):
            x, y, width, height = values[:4]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif not keypoints and len(values) >= 6 and len(values) % 2 == 0:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            expected = f"and {keypoints} of keypoints" if keypoints else "or the points of a polygon"
            hint = "" if keypoints else "; keypoints need a kpt_shape in the YAML file"
            raise DatasetError(
                f"{file}, line {line_number} is not a YOLO label: expected the four numbers of a box {expected} after "
                f"the class, not {len(values)} numbers{hint}"
            )
        yield labels[int(number)], box


def _label_file(image: Path) -> Path:
    """Return the label file: below `labels` for an image below `images`, or else beside the image."""
    beside, parts = image.with_suffix(".txt"), list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    below = Path(*parts).with_suffix(".txt")
    return beside if os.path.isfile(beside) and not os.path.isfile(below) else below
