"""One picture's detections as a short table on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..detections import Detections
from .console import printable

ROWS = 20
"""How many detections the table shows."""


def print_table(detections: Detections) -> None:
    """Print the best detections to stdout."""
    if not len(detections):
        print("nothing found; a lower --threshold shows less certain detections")
        return
    table = Table(box=SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("x1, y1 – x2, y2", justify="right")
    for name, score, box in list(zip(detections.names, detections.scores, detections.boxes, strict=True))[:ROWS]:
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        table.add_row(Text(printable(name)), f"{score:.3f}", f"{x1}, {y1} – {x2}, {y2}")
    Console().print(table)
    if len(detections) > ROWS:
        print(f"and {len(detections) - ROWS} more")
