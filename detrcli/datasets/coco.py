"""Datasets in COCO's format: one JSON file beside, above or below its images."""

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
from ..files import read_file
from ..images.sources import CocoId
from ..outputs.run import drawn
from .annotations import RAW_OBJECT, SPLITS, Box, Dataset, RawImage, Split, checked
from .sniff import head_matches

IMAGES = ("", "images", "data")
"""Folders beside the JSON file, or beside its folder, in which images may lie."""
NAMES = ("annotations.", "_annotations.", "instances")
"""How the file's name begins where there are others, such as captions_val2017.json."""
CONTENT = rb'^(\xef\xbb\xbf)?\s*\{.*"(images|annotations)"\s*:\s*\['
"""What is found in the beginning of most."""
WHOLE = "default"
"""What CVAT calls a dataset that has no splits."""
READ = frozenset(
    "images annotations categories id name supercategory file_name width height image_id category_id bbox area "
    "iscrowd".split()
)
"""Keys of what is used; all else, polygons above all, would take most of the memory."""

Entry = dict[str, Any]
Parsed = TypeVar("Parsed")
Value = TypeVar("Value", bound=Hashable)


class _Image(NamedTuple):
    file_name: str
    size: tuple[int, int] | None


class _Category(NamedTuple):
    name: str
    above: str


class _Object(NamedTuple):
    image: CocoId
    category: int
    box: Box | None
    area: float
    crowd: bool


class CocoFiles(NamedTuple):
    """Where a split is.

    Attributes:
        annotations: a JSON file with images, annotations and categories.
        folders: where its images may be; the first that has one is taken, for each image.
        part: which of `SPLITS` it is, if the dataset has parts.
    """

    annotations: Path
    folders: tuple[Path, ...]
    part: str | None = None


def find_coco(place: Path, split: Split) -> CocoFiles | None:
    """The files of a split, or None if there is no COCO dataset.

    Raises:
        DatasetError: there are other splits but not this one, or several files and no way to choose.
    """
    if place.is_file():
        return CocoFiles(place, _around(place))
    for name in SPLITS[split]:
        for folder in (place / name, *sorted(place.glob(f"{name}20*"))):
            if (inside := _file_in(folder)) is not None:
                return CocoFiles(inside, _around(inside), name)
        if (file := _file_in(place / "annotations", name)) is not None:
            folders = (path for path in sorted(place.glob(f"{name}*")) if path.is_dir())
            return CocoFiles(file, (*folders, *_around(file)), name)
    for folder, whole in ((place, ""), (place / "annotations", WHOLE)):
        if (single := _file_in(folder, whole)) is not None:
            return CocoFiles(single, _around(single))
    others = sorted(place.glob("*/*.json"))
    if others:
        raise SplitError(
            f"{place} has no annotations of a {split} split, only such as {others[0].relative_to(place)}; "
            "name the JSON file, or the folder that holds it"
        )
    return None


def is_coco(place: Path) -> bool:
    """Whether a file, or one in a folder where `find_coco` looks, is known to be COCO's by how it begins."""
    if place.is_file():
        return head_matches(place, CONTENT)
    names = [name for names in SPLITS.values() for name in names]
    folders = (place / name for name in ("", "annotations", *names))
    return any(head_matches(file, CONTENT) for folder in folders for file in _likely(sorted(folder.glob("*.json")))[:8])


def _likely(files: list[Path]) -> list[Path]:
    """Those with one of the usual names, or all if none has."""
    return [file for file in files if file.name.startswith(NAMES)] or files


def _file_in(folder: Path, part: str = "") -> Path | None:
    """The annotations in a folder, of a part if one is named: of val instances_val2017.json, not evaluation.json."""
    begins_a_word = re.compile(rf"(?<![^\W\d_]){part}")
    every = [file for file in sorted(folder.glob("*.json")) if not part or begins_a_word.search(file.stem)]
    files = _likely(every)
    if len(files) > 1:
        files = [file for file in files if head_matches(file, CONTENT)] or files
    if len(files) > 1:
        raise DatasetError(
            f"{folder} holds {len(files)} JSON files, such as {files[0].name} and {files[1].name}; "
            "name the one with the annotations"
        )
    return files[0] if files else None


def _around(file: Path) -> tuple[Path, ...]:
    """Where images may be; first of all in folders that the file is named after, as instances_val2017.json is."""
    above = Path(os.path.normpath(file.parent / os.pardir))
    near = [folder / name for folder in (file.parent, above) for name in IMAGES]
    named = [path for folder in near for path in sorted(folder.glob("*/")) if _names(file.stem, path.name)]
    return (*named, *near)


def _names(text: str, name: str) -> bool:
    """Whether a name stands in a text in whole words."""
    return re.search(rf"(?<![^-_. ]){re.escape(name)}(?![^-_. ])", text) is not None


def read_coco(files: CocoFiles, *, strict: bool = False) -> Dataset:
    """Read a COCO dataset.

    A category that only others are grouped under is no class. `strict` is as of `checked`.

    Raises:
        DatasetError: the JSON file is no such file, or see `checked`.
    """
    file, folders, part = files
    if drawn(file.parent):
        raise DatasetError(
            f"{file} lies among annotated images, which have boxes drawn on them; put it beside the original images"
        )
    content = _content(file)
    categories = dict(sorted(_by_id(file, "categories", _each(file, content, "categories", _category)).items()))
    images = _by_id(file, "images", _each(file, content, "images", _image))
    labels = {identity: label for label, identity in enumerate(categories)}
    places = {identity: place for place, identity in enumerate(images)}
    strange: list[int] = []
    lost: list[CocoId] = []
    empty: list[CocoId] = []
    used: set[int] = set()

    def known() -> Iterator[tuple[Any, ...]]:
        for one in _each(file, content, "annotations", _object):
            used.add(one.category)
            if one.category not in labels:
                strange.append(one.category)
            elif one.image not in places:
                lost.append(one.image)
            elif one.box is None:
                empty.append(one.image)
            else:
                yield places[one.image], labels[one.category], one.box, one.area, one.crowd

    objects = np.fromiter(known(), RAW_OBJECT)
    if strange:
        raise DatasetError(
            f"{file}: {len(strange)} annotations have a category_id that no category has, such as {strange[0]}; "
            f"list it, or leave them out (the categories are {_some(categories)})"
        )
    raw_images = [RawImage(_path(image.file_name, folders), identity, image.size) for identity, image in images.items()]
    repeated = _twice(one.path for one in raw_images)
    if repeated:
        raise DatasetError(
            f"{file}: {len(repeated)} images stand in it more than once, such as {repeated[0]}; "
            "give each file_name one image"
        )
    problems = [
        f"{len(images_of)} annotations {what} {images_of[0]}: left out"
        for what, images_of in (
            ("are of images that the file does not list, such as", lost),
            ("have an empty bbox, such as in image", empty),
        )
        if images_of
    ]
    ids = [identity for identity in categories if identity in used or not _is_root(identity, categories)]
    relabelled = np.full(len(categories), -1)
    relabelled[[labels[identity] for identity in ids]] = np.arange(len(ids))
    objects["label"] = relabelled[objects["label"]]
    names = [categories[identity].name for identity in ids]
    return checked(str(file), names, ids, raw_images, objects, problems, part=part, strict=strict)


def _is_root(identity: int, categories: dict[int, _Category]) -> bool:
    """Whether a category is only what others are grouped under, as Roboflow writes one above all classes."""
    name = categories[identity].name
    return any(one.above == name for other, one in categories.items() if other != identity)


def _content(file: Path) -> Entry:
    try:
        content = json.loads(_text(file), object_pairs_hook=_what_is_read)
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    tables = ("images", "annotations", "categories")
    missing = [key for key in tables if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise DatasetError(f"{file} is no COCO dataset: it has no list of {' and none of '.join(missing)}")
    return dict(content)


def _text(file: Path) -> str:
    """What `json.loads` makes of a file's bytes, but it would hold them while it parses."""
    content = read_file(file)
    return content.decode(json.detect_encoding(content), "surrogatepass")


def _what_is_read(pairs: list[tuple[str, Any]]) -> Entry:
    return {key: value for key, value in pairs if key in READ}


def _each(file: Path, content: Entry, key: str, parse: Callable[[Entry], Parsed]) -> Iterator[Parsed]:
    """The entries of a list, which is taken out of the content so that it does not outlive its use."""
    for entry in content.pop(key):
        try:
            yield parse(entry)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            fault = f"no {error}" if isinstance(error, KeyError) else f"a fault ({error})"
            raise DatasetError(
                f"{file} is no COCO dataset: an entry of its {key} has {fault}: {json.dumps(entry)[:120]}"
            ) from error


def _some(values: Iterable[int]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")


def _by_id(file: Path, key: str, parsed: Iterable[tuple[Value, Parsed]]) -> dict[Value, Parsed]:
    entries = list(parsed)
    twice = _twice(identity for identity, _ in entries)
    if twice:
        raise DatasetError(f"{file}: {len(twice)} ids of its {key} stand twice, such as {twice[0]}; give each its own")
    return dict(entries)


def _twice(values: Iterable[Value]) -> list[Value]:
    return [value for value, count in Counter(values).items() if count > 1]


def _category(entry: Entry) -> tuple[int, _Category]:
    name = entry["name"]
    if not isinstance(name, str | int) or not str(name).strip():
        raise ValueError("its name is no name")
    return _whole(entry, "id"), _Category(str(name).strip(), str(entry.get("supercategory") or "").strip())


def _image(entry: Entry) -> tuple[CocoId, _Image]:
    name = entry["file_name"]
    if not isinstance(name, str):
        raise ValueError("its file_name is no text")
    sized = entry.get("width") is not None and entry.get("height") is not None
    return _image_id(entry, "id"), _Image(name, (_whole(entry, "width"), _whole(entry, "height")) if sized else None)


def _image_id(entry: Entry, key: str) -> CocoId:
    """A number where it can be taken for one, or else text."""
    try:
        return _whole(entry, key)
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
    return _Object(_image_id(entry, "image_id"), _whole(entry, "category_id"), corners, area, bool(crowd))


def _whole(entry: Entry, key: str) -> int:
    value = entry[key]
    if type(value) is int:
        return value
    with suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        if number == value or isinstance(value, str):
            return number
    raise ValueError(f"its {key} is no whole number")


def _path(name: str, folders: tuple[Path, ...]) -> Path:
    names = dict.fromkeys((name, name.replace("\\", "/")))  # the latter as Windows wrote it
    places = (folder / one for one in names for folder in folders)
    return next((path for path in places if os.path.isfile(path)), folders[0] / name)
