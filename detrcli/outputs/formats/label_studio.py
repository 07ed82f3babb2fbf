"""Tasks with predictions for Label Studio, in one JSON array, and the labeling config that they go with.

Boxes are in percent of the picture. The labelling interface has an image called `image` with rectangles called `label`.
"""

import os
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...classes import used_labels
from ...images.fetch import is_address
from ..record import Found, Labelled
from ..settings import OutputSettings
from ..xml_text import xml_text
from .coco import write_array


def write_tasks(file: IO[bytes], pictures: Iterable[Labelled], settings: OutputSettings) -> None:
    """Write all pictures."""
    write_array(file, (_task(picture, settings.image_root) for picture in pictures))
    file.write(b"\n")


def write_config(file: IO[bytes], pictures: Iterable[Labelled], settings: OutputSettings) -> None:
    """Write the labeling config: one label for each class name."""
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    labels = SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in dict.fromkeys(xml_text(name) for _, name in used_labels(settings.class_names)):
        SubElement(labels, "Label", value=name)
    indent(view)
    file.write(tostring(view, encoding="unicode").encode() + b"\n")


def _task(picture: Labelled, image_root: str) -> dict[str, Any]:
    scores = [one.score for one in picture.found]
    prediction = {
        "model_version": picture.model,
        "score": min(scores, default=0.0),  # by which the least certain pictures are found
        "result": [_region(number, one, picture) for number, one in enumerate(picture.found)],
    }
    return {"data": {"image": _image_url(picture, image_root)}, "predictions": [prediction]}


def _image_url(picture: Labelled, image_root: str) -> str:
    if not image_root or is_address(picture.path):
        return picture.path
    slash = "" if image_root.endswith(("/", "=")) else "/"
    return image_root + slash + quote(os.fsencode(picture.relative))


def _region(number: int, one: Found, picture: Labelled) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    return {
        "id": str(number),
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": picture.width,
        "original_height": picture.height,
        "image_rotation": 0,
        "score": one.score,
        "value": {
            "x": round(100 * x1 / picture.width, 6),
            "y": round(100 * y1 / picture.height, 6),
            "width": round(100 * (x2 - x1) / picture.width, 6),
            "height": round(100 * (y2 - y1) / picture.height, 6),
            "rotation": 0,
            "rectanglelabels": [xml_text(one.label)],  # as the labeling config has it
        },
    }


FILES = {"label-studio.json": write_tasks, "label-studio.xml": write_config}
