"""A COCO dataset, its annotations with scores.

Image ids count the images from 1, unless each image has an id of its own. Category ids are the model's labels, or one
more if label 0 is a class, for many readers take 0 for the background; or those of the settings.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import IO, Any

from ...classes import used_labels
from ...images.sources import CocoId
from ..record import ImageResult
from ..settings import OutputSettings


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write all images; they are iterated twice."""
    categories = _category_ids(settings)
    names = settings.class_names
    file.write(b'{"info": {}, "licenses": [], "categories": ')
    write_array(file, ({"id": one, "name": names[label], "supercategory": ""} for label, one in categories.items()))
    file.write(b', "images": ')
    write_array(file, (_image(identity, result) for identity, result in _identified(results)))
    file.write(b', "annotations": ')
    annotations = map(_annotation, coco_results(results, settings))
    write_array(file, ({"id": number, **one} for number, one in enumerate(annotations, start=1)))
    file.write(b"}\n")


def coco_results(results: Iterable[ImageResult], settings: OutputSettings) -> Iterator[dict[str, Any]]:
    """The detections of all classes that have a category id, in COCO's results format."""
    categories = _category_ids(settings)
    for identity, result in _identified(results):
        for one in result.found:
            if one.label_id in categories:
                x1, y1, x2, y2 = one.box
                box = [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)]
                category = categories[one.label_id]
                yield {"image_id": identity, "category_id": category, "bbox": box, "score": one.score}


def write_array(file: IO[bytes], items: Iterable[dict[str, Any]]) -> None:
    """Write a JSON array, an item a line, without holding it all."""
    separators = chain([b"[\n"], repeat(b",\n"))
    empty = True
    for item in items:
        file.write(next(separators) + json.dumps(item).encode())
        empty = False
    file.write(b"[]" if empty else b"\n]")


def _category_ids(settings: OutputSettings) -> dict[int, CocoId]:
    """Category id of each label that has one."""
    labels = [label for label, _ in used_labels(settings.class_names)]
    if settings.category_ids is not None:
        given = settings.category_ids
        return {label: one for label in labels if (one := given[label]) is not None}
    shift = int(0 in labels)
    return {label: label + shift for label in labels}


def _identified(results: Iterable[ImageResult]) -> Iterator[tuple[CocoId, ImageResult]]:
    for number, result in enumerate(results, start=1):
        yield number if result.image_id is None else result.image_id, result


def _image(identity: CocoId, result: ImageResult) -> dict[str, Any]:
    return {"id": identity, "file_name": result.relative, "width": result.width, "height": result.height}


def _annotation(result: dict[str, Any]) -> dict[str, Any]:
    _, _, width, height = result["bbox"]
    return {**result, "area": round(width * height, 4), "segmentation": [], "iscrowd": 0}


FILES = {"coco.json": write}
