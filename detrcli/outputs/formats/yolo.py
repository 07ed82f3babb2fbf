"""YOLO labels: `labels/a.txt`, a line `class cx cy w h` per object, relative to the image size, and `data.yaml`.

YOLO's class numbers have no gaps: the labels that have a name are renumbered from 0. Images belong in `images/`.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO

from ...classes import used_labels
from ..record import ImageResult, OutputSettings


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return "labels" / relative.with_suffix(".txt")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """Render one line per detection."""
    numbers = _class_numbers(settings.class_names)
    lines = []
    for one in result.detections:
        x1, y1, x2, y2 = one.box
        center = (x1 + x2) / 2 / result.width, (y1 + y2) / 2 / result.height
        size = (x2 - x1) / result.width, (y2 - y1) / result.height
        lines.append(" ".join((str(numbers[one.label_id]), *(f"{value:.6f}" for value in (*center, *size)))) + "\n")
    return "".join(lines).encode()


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the class names and the folder of the images."""
    import yaml

    names = dict(enumerate(name for _, name in used_labels(settings.class_names)))
    description = {"train": "images", "val": "images", "names": names}  # relative to this file
    file.write(yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode())


@lru_cache(maxsize=1)
def _class_numbers(class_names: tuple[str, ...]) -> dict[int, int]:
    return {label: number for number, (label, _) in enumerate(used_labels(class_names))}


FILES = {"data.yaml": write}
