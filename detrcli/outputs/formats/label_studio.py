"""Label Studio tasks with predictions, in one JSON array, and the labeling config for them.

Boxes are in percent of the image. In the labeling config, the image is called `image` and the rectangles `label`.
"""

import os
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...classes import used_labels
from ...images.urls import is_url
from ..record import Detection, ImageResult, OutputSettings
from ..xml_text import xml_text
from .coco import write_array


def write_tasks(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the tasks of all images."""
    write_array(file, (_task(result, settings.image_root) for result in results))
    file.write(b"\n")


def write_config(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the labeling config: one label per class name."""
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    labels = SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in dict.fromkeys(xml_text(name) for _, name in used_labels(settings.class_names)):
        SubElement(labels, "Label", value=name)
    indent(view)
    file.write(tostring(view, encoding="unicode").encode() + b"\n")


def _task(result: ImageResult, image_root: str) -> dict[str, Any]:
    scores = [one.score for one in result.detections]
    prediction = {
        "model_version": result.model,
        "score": min(scores, default=0.0),  # for sorting tasks by the least confident detection
        "result": [_region(number, one, result) for number, one in enumerate(result.detections)],
    }
    return {"data": {"image": _image_url(result, image_root)}, "predictions": [prediction]}


def _image_url(result: ImageResult, image_root: str) -> str:
    if not image_root or is_url(result.path):
        return result.path
    slash = "" if image_root.endswith(("/", "=")) else "/"
    return image_root + slash + quote(os.fsencode(result.relative))


def _region(number: int, one: Detection, result: ImageResult) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    return {
        "id": str(number),
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": result.width,
        "original_height": result.height,
        "image_rotation": 0,
        "score": one.score,
        "value": {
            "x": round(100 * x1 / result.width, 6),
            "y": round(100 * y1 / result.height, 6),
            "width": round(100 * (x2 - x1) / result.width, 6),
            "height": round(100 * (y2 - y1) / result.height, 6),
            "rotation": 0,
            "rectanglelabels": [xml_text(one.label)],  # as in the labeling config
        },
    }


FILES = {"label-studio.json": write_tasks, "label-studio.xml": write_config}
