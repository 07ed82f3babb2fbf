"""YOLO's labels: `labels/a.txt`, a line `class cx cy w h` for each object, relative to the image, and `data.yaml`.

YOLO's classes have no gaps: they are counted over the labels that have a name. The images belong into `images/`.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO

from ...classes import used_labels
from ..record import ImageResult
from ..settings import OutputSettings


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return "labels" / relative.with_suffix(".txt")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """A line for each object, none for an image without any."""
    number = _numbers(settings.class_names)
    lines = []
    for one in result.found:
        x1, y1, x2, y2 = one.box
        centre = (x1 + x2) / 2 / result.width, (y1 + y2) / 2 / result.height
        size = (x2 - x1) / result.width, (y2 - y1) / result.height
        lines.append(" ".join((str(number[one.label_id]), *(f"{value:.6f}" for value in (*centre, *size)))) + "\n")
    return "".join(lines).encode()


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the names of the classes, and where images belong."""
    import yaml

    names = dict(enumerate(name for _, name in used_labels(settings.class_names)))
    described = {"train": "images", "val": "images", "names": names}  # beside the file itself, wherever that is
    file.write(yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode())


@lru_cache(maxsize=1)
def _numbers(class_names: tuple[str, ...]) -> dict[int, int]:
    return {label: number for number, (label, _) in enumerate(used_labels(class_names))}


FILES = {"data.yaml": write}
