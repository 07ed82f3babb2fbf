"""COCO's results format, with the ids of coco.json."""

from collections.abc import Iterable
from typing import IO

from ..record import ImageResult, OutputSettings
from .coco import coco_results, write_array


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the detections of all images."""
    write_array(file, coco_results(results, settings))
    file.write(b"\n")


FILES = {"coco-results.json": write}
