"""COCO dataset whose annotations have scores.

Images are numbered from 1 unless they have ids already. Category ids are those of the settings, or else the model's
label ids; these are shifted by one if label 0 is a class, because many readers take 0 for the background.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import IO, Any

from ...classes import used_labels
from ...images.sources import CocoId
from ..record import ImageResult, OutputSettings


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the results, which are iterated twice."""
    categories = _category_ids(settings)
    names = settings.class_names
    file.write(b'{"info": {}, "licenses": [], "categories": ')
    write_array(
        file, ({"id": category, "name": names[label], "supercategory": ""} for label, category in categories.items())
    )
    file.write(b', "images": ')
    write_array(file, (_image(image_id, result) for image_id, result in _with_ids(results)))
    file.write(b', "annotations": ')
    annotations = map(_annotation, coco_results(results, settings))
    write_array(file, ({"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)))
    file.write(b"}\n")


def coco_results(results: Iterable[ImageResult], settings: OutputSettings) -> Iterator[dict[str, Any]]:
    """Yield the detections whose class has a category id, in COCO's results format."""
    categories = _category_ids(settings)
    for image_id, result in _with_ids(results):
        for one in result.detections:
            if one.label_id in categories:
                x1, y1, x2, y2 = one.box
                box = [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)]
                category = categories[one.label_id]
                yield {"image_id": image_id, "category_id": category, "bbox": box, "score": one.score}


def write_array(file: IO[bytes], items: Iterable[dict[str, Any]]) -> None:
    """Write a JSON array, one item per line, without holding it in memory."""
    separators = chain([b"[\n"], repeat(b",\n"))
    empty = True
    for item in items:
        file.write(next(separators) + json.dumps(item).encode())
        empty = False
    file.write(b"[]" if empty else b"\n]")


def _category_ids(settings: OutputSettings) -> dict[int, CocoId]:
    """Category id by label, for the labels that have one."""
    labels = [label for label, _ in used_labels(settings.class_names)]
    if settings.category_ids is not None:
        ids = settings.category_ids
        return {label: category for label in labels if (category := ids[label]) is not None}
    shift = int(0 in labels)
    return {label: label + shift for label in labels}


def _with_ids(results: Iterable[ImageResult]) -> Iterator[tuple[CocoId, ImageResult]]:
    for number, result in enumerate(results, start=1):
        yield number if result.image_id is None else result.image_id, result


def _image(image_id: CocoId, result: ImageResult) -> dict[str, Any]:
    return {"id": image_id, "file_name": result.relative, "width": result.width, "height": result.height}


def _annotation(result: dict[str, Any]) -> dict[str, Any]:
    _, _, width, height = result["bbox"]
    return {**result, "area": round(width * height, 4), "segmentation": [], "iscrowd": 0}


FILES = {"coco.json": write}
