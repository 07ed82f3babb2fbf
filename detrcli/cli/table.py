"""Tables on stdout."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..outputs.record import ImageResult
from .console import printable

ROWS = 20
"""Most detections in a table."""


def print_detections(result: ImageResult) -> None:
    """Print the best detections of one image."""
    if not result.detections:
        print("no detections; a lower --threshold shows less certain ones")
        return
    table = Table(box=SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("x1, y1 – x2, y2", justify="right")
    for one in result.detections[:ROWS]:
        x1, y1, x2, y2 = map(round, one.box)
        table.add_row(Text(printable(one.label)), f"{one.score:.3f}", f"{x1}, {y1} – {x2}, {y2}")
    print_fitting(table)
    if len(result.detections) > ROWS:
        print(f"and {len(result.detections) - ROWS} more")


def print_fitting(table: Table) -> None:
    """Print a table, or a paragraph for each row where the table is wider than the terminal."""
    stdout = Console()
    if Measurement.get(stdout, stdout.options.update(width=10_000), table).maximum <= stdout.width:
        stdout.print(table)
        return
    titles = [str(column.header) for column in table.columns]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        text = "; ".join(f"{title}: {cell}" for title, cell in zip(titles, cells, strict=True) if str(cell))
        stdout.print(Padding(text, (0, 0, 1, 0)), style=row.style, markup=False, highlight=False)
