"""LabelMe's JSON, a file a picture: `a.jpg` → `a.json`, which names its image by the path from there."""

import json
import os
from pathlib import Path, PurePosixPath

from ...images.fetch import is_address
from ..record import Found, Labelled
from ..settings import OutputSettings

VERSION = "5.5.0"
"""Of LabelMe, whose files look so."""


def place(relative: PurePosixPath) -> PurePosixPath:
    """Where a picture's file belongs."""
    return relative.with_suffix(".json")


def content(picture: Labelled, settings: OutputSettings) -> bytes:
    """A rectangle for each object, its score as the description."""
    record: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": [_shape(one) for one in picture.found],
        "imagePath": picture.path if is_address(picture.path) else _from_json(picture, settings.folder),
        "imageData": None,
        "imageHeight": picture.height,
        "imageWidth": picture.width,
    }
    return json.dumps(record, indent=2).encode() + b"\n"


def _from_json(picture: Labelled, output: Path) -> str:
    """Path of the image from the folder of the JSON file, links to folders resolved."""
    folder, name = os.path.split(os.path.abspath(picture.path))
    path = os.path.join(os.path.realpath(folder), name)
    try:
        return os.path.relpath(path, os.path.realpath(output / PurePosixPath(picture.relative).parent))
    except ValueError:  # different drives
        return path


def _shape(one: Found) -> dict[str, object]:
    x1, y1, x2, y2 = one.box
    return {
        "label": one.label,
        "points": [[x1, y1], [x2, y2]],
        "group_id": None,
        "description": f"{one.score:.6f}",
        "shape_type": "rectangle",
        "flags": {},
    }
