"""Tasks with predictions for Label Studio, in one JSON array.

Boxes are in percent of the picture. The labelling interface has an image called `image` with rectangles called `label`.
"""

from collections.abc import Iterable
from typing import IO, Any

from ..labelled import Found, Labelled
from .coco import write_array

NAME = "label-studio.json"


def write(file: IO[bytes], pictures: Iterable[Labelled], class_names: tuple[str, ...]) -> None:
    """Write all pictures."""
    write_array(file, (_task(picture) for picture in pictures))
    file.write(b"\n")


def _task(picture: Labelled) -> dict[str, Any]:
    scores = [one.score for one in picture.found]
    prediction = {
        "model_version": picture.model,
        "score": min(scores, default=0.0),  # by which the least certain pictures are found
        "result": [_region(number, one, picture) for number, one in enumerate(picture.found)],
    }
    return {"data": {"image": picture.path}, "predictions": [prediction]}


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
            "rectanglelabels": [one.label],
        },
    }
