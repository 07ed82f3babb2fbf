"""Datasets in LabelMe's format: a JSON file of shapes per image."""

import json
from collections import Counter
from math import hypot
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .annotations import Box, Dataset, Split
from .reading import head_matches, read_bytes
from .sidecars import AnnotatedImage, NamedObject, find_files, read_files

SUFFIX, ANNOTATIONS = ".json", "annotations"
AREAS = ("rectangle", "polygon", "circle", "rotation", "mask")
"""Types of shapes that enclose an object, unlike points and lines."""
CONTENT = rb'"shapes"\s*:\s*\[|"imageData"\s*:\s*("|null)'
"""Pattern in the first bytes of a file, which may consist of image data only."""


def read_labelme(path: Path, split: Split, *, strict: bool) -> Dataset | None:
    """Read one split of a LabelMe dataset, or return None if there is none.

    Polygons, circles and masks become their bounding boxes.

    Raises:
        DatasetError: a file cannot be read, there is no such split, or see `build_dataset`.
    """
    files = find_files(path, split, SUFFIX, ANNOTATIONS, lambda file: head_matches(file, CONTENT))
    return None if files is None else read_files(files, _parse, strict=strict)


def _parse(file: Path) -> AnnotatedImage | None:
    try:
        content = json.loads(read_bytes(file))
        if not isinstance(content, dict) or "shapes" not in content:
            return None
        width, height = (int(content.get(key) or 0) for key in ("imageWidth", "imageHeight"))
        size = (width, height) if width and height else None
        shapes = [(one.get("shape_type") or "polygon", one) for one in content["shapes"]]
        objects = [NamedObject(_name(one), _box(kind, one["points"])) for kind, one in shapes if kind in AREAS]
        ignored = Counter(f"shapes of type {kind!r}" for kind, _ in shapes if kind not in AREAS)
        return AnnotatedImage(str(content.get("imagePath") or ""), size, objects, ignored)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{file} is not a valid LabelMe file ({type(error).__name__}: {error}); correct or remove it"
        ) from error


def _name(shape: dict[str, Any]) -> str:
    name = str(shape["label"]).strip()
    if shape["label"] is None or not name:
        raise ValueError("a shape has no label")
    return name


def _box(kind: str, points: list[list[float]]) -> Box:
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    if kind == "circle":
        (x, edge_x), (y, edge_y) = xs, ys
        radius = hypot(edge_x - x, edge_y - y)
        return (x - radius, y - radius, x + radius, y + radius)
    return (min(xs), min(ys), max(xs), max(ys))
