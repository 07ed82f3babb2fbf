"""COCO's results format, with the ids of `coco.json`."""

from collections.abc import Iterable
from typing import IO

from ..record import Labelled
from ..settings import OutputSettings
from .coco import results, write_array


def write(file: IO[bytes], pictures: Iterable[Labelled], settings: OutputSettings) -> None:
    """Write all pictures."""
    write_array(file, results(pictures, settings))
    file.write(b"\n")


FILES = {"coco-results.json": write}
