"""Small datasets on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from detrcli.datasets import Split, read_dataset
from detrcli.errors import DatasetError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


def write_image(path: Path, size: tuple[int, int] = (40, 30), *, orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size, "teal").save(path, exif=exif)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def write_json(path: Path, content: object) -> Path:
    return write_text(path, json.dumps(content))


def refusal(path: Path, split: Split = "val") -> str:
    """Return the one-line error of reading a dataset."""
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, split)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def as_coco(
    objects_of: Mapping[str, Sequence[tuple[int, Box]]], classes: Sequence[str], size: tuple[int, int] = (40, 30)
) -> dict[str, Any]:
    """Contents of a COCO JSON file for images of one size, with the label and box of each object by image name.

    Ids differ from indices: 700, 703, … for images and 10, 20, … for categories.
    """
    width, height = size
    images = [
        {"id": 700 + 3 * index, "file_name": name, "width": width, "height": height}
        for index, name in enumerate(objects_of)
    ]
    annotations = [
        {
            "image_id": image["id"],
            "category_id": 10 * (label + 1),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for image, objects in zip(images, objects_of.values(), strict=True)
        for label, (x1, y1, x2, y2) in objects
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    categories = [{"id": 10 * (label + 1), "name": name} for label, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def as_yolo(objects: Sequence[tuple[int, Box]], size: tuple[int, int] = (40, 30)) -> str:
    """Contents of a YOLO label file for the label and box of each object."""
    width, height = size
    return "".join(
        f"{label} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}\n"
        for label, (x1, y1, x2, y2) in objects
    )
