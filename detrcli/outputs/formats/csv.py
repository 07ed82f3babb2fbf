"""One CSV table with a row per detection.

Spreadsheets read a cell that begins with `=` and the like as a formula. Such text cells, and those that begin with an
apostrophe, are written with an apostrophe in front, which a reader removes.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import IO

from ..record import ImageResult, OutputSettings

FORMULA = re.compile("['=+\\-@＝＋－＠\\x00-\\x1f\\x7f]")
"""First characters of text that a spreadsheet may not keep as text."""
COLUMNS = ("path", "width", "height", "label_id", "label", "score", "x1", "y1", "x2", "y2")


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the detections of all images."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for result in results:
        path = _as_text(result.path)
        for one in result.detections:
            size = (result.width, result.height)
            table.writerow((path, *size, one.label_id, _as_text(one.label), one.score, *one.box))
    text.detach()


def _as_text(cell: str) -> str:
    return f"'{cell}" if FORMULA.match(cell) else cell


FILES = {"detections.csv": write}
