"""One JSON file a picture, beside where its drawing goes: `a.jpg` → `a.jpg.json`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..detections import Detections, as_record
from ..files import atomic_file
from ..images.sources import ImageReference
from . import Writer


@contextmanager
def writer(output: Path) -> Iterator[Writer]:
    """Give a writer of `<output>/<picture>.json`."""

    def write(reference: ImageReference, model: str, detections: Detections) -> None:
        with atomic_file(output / f"{reference.relative}.json") as file:
            file.write(json.dumps(as_record(reference.path, model, detections), indent=2).encode() + b"\n")

    yield write
