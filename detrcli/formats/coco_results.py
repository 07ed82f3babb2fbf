"""COCO's results format, with the image ids of `coco.json`."""

from collections.abc import Iterable
from typing import IO

from ..labelled import Labelled
from .coco import results, write_array

NAME = "coco-results.json"


def write(file: IO[bytes], pictures: Iterable[Labelled], class_names: tuple[str, ...]) -> None:
    """Write all pictures."""
    write_array(file, results(pictures))
    file.write(b"\n")
