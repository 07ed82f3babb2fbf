"""Rendered scenes as a dataset in the layout of COCO."""

import io
import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path

from detrcli.files import atomic_file
from detrcli.host import cores

from .scene import scene
from .shapes import CLASSES

MIN_PARALLEL = 200
JPEG_QUALITY = 90


def write(folder: Path, count: int, seed: int, first: int = 0) -> None:
    """Write scenes in the layout of COCO: the images `000000.jpg` and so on, then `annotations.json`.

    Args:
        folder: output folder, created if missing.
        count: number of scenes.
        seed: number of the series of scenes.
        first: index in the series of the first scene.

    Raises:
        OutputError: a file cannot be written.
    """
    listing = folder / "annotations.json"
    with suppress(OSError):
        listing.unlink()  # of an earlier run, whose images will be replaced
    save = partial(_save, folder, seed, first)
    if count < MIN_PARALLEL:
        record = _coco(map(save, range(count)))
    else:
        with ProcessPoolExecutor(cores(), get_context("spawn"), _end_with_parent) as pool:
            record = _coco(pool.map(save, range(count), chunksize=16))
    with atomic_file(listing) as file:
        file.write(json.dumps(record).encode())


def _save(folder: Path, seed: int, first: int, position: int) -> tuple[tuple[int, int], list[list[float]], list[int]]:
    made = scene(seed, first + position)
    encoded = io.BytesIO()
    made.image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    with atomic_file(folder / f"{position:06d}.jpg") as file:
        file.write(encoded.getbuffer())
    return made.image.size, made.boxes.tolist(), made.labels.tolist()


def _coco(saved: Iterable[tuple[tuple[int, int], list[list[float]], list[int]]]) -> dict[str, list[dict[str, object]]]:
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for position, ((width, height), boxes, labels) in enumerate(saved):
        images.append({"id": position, "file_name": f"{position:06d}.jpg", "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": position, "category_id": label + 1,
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    categories: list[dict[str, object]] = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _end_with_parent() -> None:
    """Exit when the parent process is killed, which the pool does not ensure."""

    def follow() -> None:
        parent = parent_process()
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
