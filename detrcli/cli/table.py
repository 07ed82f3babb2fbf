"""One image's detections as a short table on a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..outputs.record import ImageResult
from .console import printable
from .narrow import print_fitting

ROWS = 20
"""How many detections the table shows."""


def print_table(result: ImageResult) -> None:
    """Print the best of its detections to stdout."""
    if not result.found:
        print("nothing found; a lower --threshold shows less certain detections")
        return
    table = Table(box=SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("x1, y1 – x2, y2", justify="right")
    for one in result.found[:ROWS]:
        x1, y1, x2, y2 = map(round, one.box)
        table.add_row(Text(printable(one.label)), f"{one.score:.3f}", f"{x1}, {y1} – {x2}, {y2}")
    print_fitting(table)
    if len(result.found) > ROWS:
        print(f"and {len(result.found) - ROWS} more")
