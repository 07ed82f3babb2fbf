"""Datasets in COCO's format: one JSON file near its images."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import DatasetError, SplitError
from ..images.sources import CocoId
from ..outputs.plan import has_annotated_images
from .annotations import RAW_OBJECT, SPLITS, Box, Dataset, RawImage, Split, build_dataset
from .reading import head_matches, read_bytes

IMAGES = ("", "images", "data")
"""Folders for images, relative to the folder of the JSON file or its parent."""
NAMES = ("annotations.", "_annotations.", "instances")
"""Usual first parts of the file name, which exclude others such as captions_val2017.json."""
CONTENT = rb'^(\xef\xbb\xbf)?\s*\{.*"(images|annotations)"\s*:\s*\['
"""Pattern in the first bytes of most COCO files."""
NO_SPLIT = "default"
"""CVAT's name for a dataset without splits."""
KEYS = frozenset(
    "images annotations categories id name supercategory file_name width height image_id category_id bbox area "
    "iscrowd".split()
)
"""Keys to keep; the others, above all polygons, would take most of the memory."""

Entry = dict[str, Any]
Parsed = TypeVar("Parsed")
Value = TypeVar("Value", bound=Hashable)


class _Image(NamedTuple):
    file_name: str
    size: tuple[int, int] | None


class _Category(NamedTuple):
    name: str
    supercategory: str


class _Object(NamedTuple):
    image: CocoId
    category: int
    box: Box | None
    area: float
    crowd: bool


class CocoFiles(NamedTuple):
    """Files of a split.

    Attributes:
        annotations: JSON file with images, annotations and categories.
        folders: folders to search for each image, in this order.
        split_name: which name in `SPLITS` the split has, if the dataset has splits.
    """

    annotations: Path
    folders: tuple[Path, ...]
    split_name: str | None = None


def find_coco(path: Path, split: Split) -> CocoFiles | None:
    """Find the files of a split; return None if there is no COCO dataset.

    Raises:
        DatasetError: there are other splits but not this one, or several files to choose from.
    """
    if path.is_file():
        return CocoFiles(path, _image_folders(path))
    for name in SPLITS[split]:
        for folder in (path / name, *sorted(path.glob(f"{name}20*"))):
            if (inside := _file_in(folder)) is not None:
                return CocoFiles(inside, _image_folders(inside), name)
        if (file := _file_in(path / "annotations", name)) is not None:
            folders = (folder for folder in sorted(path.glob(f"{name}*")) if folder.is_dir())
            return CocoFiles(file, (*folders, *_image_folders(file)), name)
    for folder, name in ((path, ""), (path / "annotations", NO_SPLIT)):
        if (single := _file_in(folder, name)) is not None:
            return CocoFiles(single, _image_folders(single))
    others = sorted(path.glob("*/*.json"))
    if others:
        raise SplitError(
            f"{path} has no annotations of a {split} split, only others such as {others[0].relative_to(path)}; "
            "specify the JSON file, or the folder that contains it"
        )
    return None


def is_coco(path: Path) -> bool:
    """Whether a file, or one where `find_coco` searches in a folder, has the first bytes of a COCO file."""
    if path.is_file():
        return head_matches(path, CONTENT)
    names = [name for names in SPLITS.values() for name in names]
    folders = (path / name for name in ("", "annotations", *names))
    return any(head_matches(file, CONTENT) for folder in folders for file in _likely(sorted(folder.glob("*.json")))[:8])


def _likely(files: list[Path]) -> list[Path]:
    """Select the files with usual names, or all if there are none."""
    return [file for file in files if file.name.startswith(NAMES)] or files


def _file_in(folder: Path, split_name: str = "") -> Path | None:
    """Find the annotations in a folder; those of val are in instances_val2017.json, but not in evaluation.json."""
    pattern = re.compile(rf"(?<![^\W\d_]){split_name}")
    files = _likely([file for file in sorted(folder.glob("*.json")) if pattern.search(file.stem)])
    if len(files) > 1:
        files = [file for file in files if head_matches(file, CONTENT)] or files
    if len(files) > 1:
        raise DatasetError(
            f"{folder} contains {len(files)} JSON files, such as {files[0].name} and {files[1].name}; "
            "specify the one with the annotations"
        )
    return files[0] if files else None


def _image_folders(file: Path) -> tuple[Path, ...]:
    """List folders for images; the first ones are those in the file name, such as val2017 in instances_val2017.json."""
    parent = Path(os.path.normpath(file.parent / os.pardir))
    usual = [folder / name for folder in (file.parent, parent) for name in IMAGES]
    named = [path for folder in usual for path in sorted(folder.glob("*/")) if _has_words(file.stem, path.name)]
    return (*named, *usual)


def _has_words(text: str, words: str) -> bool:
    """Whether a text contains words as whole words."""
    return re.search(rf"(?<![^-_. ]){re.escape(words)}(?![^-_. ])", text) is not None


def read_coco(files: CocoFiles, *, strict: bool = False) -> Dataset:
    """Read a COCO dataset; see `build_dataset` for `strict`.

    A category without objects that is only the supercategory of others is not a class.

    Raises:
        DatasetError: the file is not a COCO dataset, or see `build_dataset`.
    """
    file, folders, split_name = files
    if has_annotated_images(file.parent):
        raise DatasetError(
            f"{file} is among annotated images, which have boxes drawn on them; put it beside the original images"
        )
    content = _content(file)
    categories = dict(sorted(_parse_by_id(file, content, "categories", _category).items()))
    images = _parse_by_id(file, content, "images", _image)
    labels = {category: label for label, category in enumerate(categories)}
    indices = {image_id: index for index, image_id in enumerate(images)}
    unknown: list[int] = []
    unlisted: list[CocoId] = []
    empty: list[CocoId] = []
    used: set[int] = set()

    def objects_of_images() -> Iterator[tuple[Any, ...]]:
        for one in _parse_each(file, content, "annotations", _object):
            used.add(one.category)
            if one.category not in labels:
                unknown.append(one.category)
            elif one.image not in indices:
                unlisted.append(one.image)
            elif one.box is None:
                empty.append(one.image)
            else:
                yield indices[one.image], labels[one.category], one.box, one.area, one.crowd

    objects = np.fromiter(objects_of_images(), RAW_OBJECT)
    if unknown:
        raise DatasetError(
            f"{file}: {len(unknown)} annotations have a category_id that no category has, such as {unknown[0]}; "
            f"add the category or remove the annotations (the categories are {_some(categories)})"
        )
    raw_images = [RawImage(_path(image.file_name, folders), image_id, image.size) for image_id, image in images.items()]
    repeated = _repeated(one.path for one in raw_images)
    if repeated:
        raise DatasetError(
            f"{file}: {len(repeated)} images are listed more than once, such as {repeated[0]}; list each file_name once"
        )
    problems = [
        f"{len(of_images)} annotations {what} {of_images[0]}: skipped"
        for what, of_images in (
            ("are of images that the file does not list, such as", unlisted),
            ("have an empty bbox, such as in image", empty),
        )
        if of_images
    ]
    ids = [category for category in categories if category in used or not _is_root(category, categories)]
    new_labels = np.full(len(categories), -1)
    new_labels[[labels[category] for category in ids]] = np.arange(len(ids))
    objects["label"] = new_labels[objects["label"]]
    names = [categories[category].name for category in ids]
    return build_dataset(str(file), names, ids, raw_images, objects, problems, split_name=split_name, strict=strict)


def _is_root(category: int, categories: dict[int, _Category]) -> bool:
    """Whether a category is the supercategory of others, like the one that Roboflow adds above all classes."""
    name = categories[category].name
    return any(one.supercategory == name for other, one in categories.items() if other != category)


def _content(file: Path) -> Entry:
    try:
        content = json.loads(_text(file), object_pairs_hook=_select_keys)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    tables = ("images", "annotations", "categories")
    missing = [key for key in tables if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise DatasetError(f"{file} is not a COCO dataset: it has no list of {' or '.join(missing)}")
    return dict(content)


def _text(file: Path) -> str:
    """Decode a file as `json.loads` does, which would keep the bytes in memory while parsing."""
    content = read_bytes(file)
    return content.decode(json.detect_encoding(content), "surrogatepass")


def _select_keys(pairs: list[tuple[str, Any]]) -> Entry:
    return {key: value for key, value in pairs if key in KEYS}


def _parse_each(file: Path, content: Entry, key: str, parse: Callable[[Entry], Parsed]) -> Iterator[Parsed]:
    """Parse the entries of a list, which is removed from the content to free its memory."""
    for entry in content.pop(key):
        try:
            yield parse(entry)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            problem = f"has no {error}" if isinstance(error, KeyError) else f"is invalid ({error})"
            raise DatasetError(
                f"{file} is not a COCO dataset: an entry of its {key} {problem}: {json.dumps(entry)[:120]}"
            ) from error


def _some(values: Iterable[int]) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (", …" if len(texts) > 8 else "")


def _parse_by_id(
    file: Path, content: Entry, key: str, parse: Callable[[Entry], tuple[Value, Parsed]]
) -> dict[Value, Parsed]:
    entries = list(_parse_each(file, content, key, parse))
    repeated = _repeated(entry_id for entry_id, _ in entries)
    if repeated:
        raise DatasetError(f"{file}: {len(repeated)} ids of its {key} are not unique, such as {repeated[0]}")
    return dict(entries)


def _repeated(values: Iterable[Value]) -> list[Value]:
    return [value for value, count in Counter(values).items() if count > 1]


def _category(entry: Entry) -> tuple[int, _Category]:
    name = entry["name"]
    if not isinstance(name, str | int) or not str(name).strip():
        raise ValueError("its name is empty or not a string")
    return _integer(entry, "id"), _Category(str(name).strip(), str(entry.get("supercategory") or "").strip())


def _image(entry: Entry) -> tuple[CocoId, _Image]:
    name = entry["file_name"]
    if not isinstance(name, str):
        raise ValueError("its file_name is not a string")
    has_size = entry.get("width") is not None and entry.get("height") is not None
    size = (_integer(entry, "width"), _integer(entry, "height")) if has_size else None
    return _image_id(entry, "id"), _Image(name, size)


def _image_id(entry: Entry, key: str) -> CocoId:
    """Return an id as a number if possible, or else as a string."""
    try:
        return _integer(entry, key)
    except ValueError:
        if isinstance(entry[key], str) and entry[key]:
            return str(entry[key])
        raise


def _object(entry: Entry) -> _Object:
    box, corners = entry["bbox"], None
    if box is not None and (not isinstance(box, list) or len(box) not in (0, 4)):
        raise ValueError("its bbox is not [x, y, width, height]")
    if box:
        x, y, width, height = map(float, box)
        corners = (x, y, x + width, y + height)
    area, crowd = float(entry.get("area") or 0), int(entry.get("iscrowd") or 0)
    return _Object(_image_id(entry, "image_id"), _integer(entry, "category_id"), corners, area, bool(crowd))


def _integer(entry: Entry, key: str) -> int:
    value = entry[key]
    if type(value) is int:
        return value
    with suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        if number == value or isinstance(value, str):
            return number
    raise ValueError(f"its {key} is not an integer")


def _path(name: str, folders: tuple[Path, ...]) -> Path:
    names = dict.fromkeys((name, name.replace("\\", "/")))  # the latter for files written on Windows
    paths = (folder / one for one in names for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), folders[0] / name)
