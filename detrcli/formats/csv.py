"""One table, a row a detection."""

import csv
import io
from collections.abc import Iterable
from typing import IO

from ..labelled import Labelled

NAME = "detections.csv"
COLUMNS = ("path", "width", "height", "label_id", "label", "score", "x1", "y1", "x2", "y2")


def write(file: IO[bytes], pictures: Iterable[Labelled], class_names: tuple[str, ...]) -> None:
    """Write all pictures."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for picture in pictures:
        for one in picture.found:
            table.writerow((picture.path, picture.width, picture.height, one.label_id, one.label, one.score, *one.box))
    text.detach()
