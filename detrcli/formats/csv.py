"""One table for all pictures, a row a detection: `detections.csv`."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..detections import Detections, as_record
from ..files import atomic_file
from ..images.sources import ImageReference
from . import Writer

COLUMNS = ("path", "width", "height", "label_id", "label", "score", "x1", "y1", "x2", "y2")


@contextmanager
def writer(output: Path) -> Iterator[Writer]:
    """Give a writer of `<output>/detections.csv`, which appears when the context ends well."""
    with atomic_file(output / "detections.csv") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        table = csv.writer(text)
        table.writerow(COLUMNS)

        def write(reference: ImageReference, model: str, detections: Detections) -> None:
            record = as_record(reference.path, model, detections)
            for found in record["detections"]:
                table.writerow(
                    (
                        reference.path,
                        detections.width,
                        detections.height,
                        found["label_id"],
                        found["label"],
                        found["score"],
                        *found["box"],
                    )
                )

        yield write
        text.detach()
