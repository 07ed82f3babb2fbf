"""One file of JSON lines for all pictures, a line a picture: `detections.jsonl`."""

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
    """Give a writer of `<output>/detections.jsonl`, which appears when the context ends well."""
    with atomic_file(output / "detections.jsonl") as file:

        def write(reference: ImageReference, model: str, detections: Detections) -> None:
            file.write(json.dumps(as_record(reference.path, model, detections)).encode() + b"\n")

        yield write
