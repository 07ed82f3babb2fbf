"""A data set in COCO's format, its annotations with scores.

Category ids are the model's label ids; image ids count the pictures from 1. A label that no class has is no category,
and no annotation has it.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import IO, Any

from ..class_names import used_labels
from ..labelled import Labelled

NAME = "coco.json"


def write(file: IO[bytes], pictures: Iterable[Labelled], class_names: tuple[str, ...]) -> None:
    """Write all pictures; they are iterated twice."""
    names = dict(used_labels(class_names))
    file.write(b'{"info": {}, "licenses": [], "categories": ')
    write_array(file, ({"id": label, "name": name} for label, name in names.items()))
    file.write(b', "images": ')
    write_array(file, (_image(identity, picture) for identity, picture in enumerate(pictures, start=1)))
    file.write(b', "annotations": ')
    annotations = (_annotation(one) for one in results(pictures) if one["category_id"] in names)
    write_array(file, ({"id": number, **one} for number, one in enumerate(annotations, start=1)))
    file.write(b"}\n")


def results(pictures: Iterable[Labelled]) -> Iterator[dict[str, Any]]:
    """What was found, in COCO's results format."""
    for identity, picture in enumerate(pictures, start=1):
        for one in picture.found:
            x1, y1, x2, y2 = one.box
            box = [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)]
            yield {"image_id": identity, "category_id": one.label_id, "bbox": box, "score": one.score}


def write_array(file: IO[bytes], items: Iterable[dict[str, Any]]) -> None:
    """Write a JSON array, an item a line, without holding it all."""
    separators = chain([b"[\n"], repeat(b",\n"))
    empty = True
    for item in items:
        file.write(next(separators) + json.dumps(item).encode())
        empty = False
    file.write(b"[]" if empty else b"\n]")


def _image(identity: int, picture: Labelled) -> dict[str, Any]:
    return {"id": identity, "file_name": picture.relative, "width": picture.width, "height": picture.height}


def _annotation(result: dict[str, Any]) -> dict[str, Any]:
    _, _, width, height = result["bbox"]
    return {**result, "area": round(width * height, 4), "iscrowd": 0}
