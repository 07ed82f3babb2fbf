"""LabelMe, one JSON file per image: `a.jpg` → `a.json`, with the path of the image relative to it."""

import json
import os
from pathlib import Path, PurePosixPath

from ...images.urls import is_url
from ..record import Detection, ImageResult, OutputSettings

VERSION = "5.5.0"
"""Version of LabelMe that writes such files."""


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return relative.with_suffix(".json")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """Render the detections as rectangles, with the score as description."""
    record: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": [_shape(one) for one in result.detections],
        "imagePath": result.path if is_url(result.path) else _from_json(result, settings.folder),
        "imageData": None,
        "imageHeight": result.height,
        "imageWidth": result.width,
    }
    return json.dumps(record, indent=2).encode() + b"\n"


def _from_json(result: ImageResult, output: Path) -> str:
    """Path of the image relative to the folder of the JSON file, with links to folders resolved."""
    folder, name = os.path.split(os.path.abspath(result.path))
    path = os.path.join(os.path.realpath(folder), name)
    try:
        return os.path.relpath(path, os.path.realpath(output / PurePosixPath(result.relative).parent))
    except ValueError:  # different drives
        return path


def _shape(one: Detection) -> dict[str, object]:
    x1, y1, x2, y2 = one.box
    return {
        "label": one.label,
        "points": [[x1, y1], [x2, y2]],
        "group_id": None,
        "description": f"{one.score:.6f}",
        "shape_type": "rectangle",
        "flags": {},
    }
