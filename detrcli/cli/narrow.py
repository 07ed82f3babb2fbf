"""Help and tables that stay readable on narrow terminals."""

import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.table import Table

NARROW = 60
"""Columns below which descriptions stand under options, not beside them."""
LEAST = 20
"""Columns that help takes even where there are fewer."""


class _Formatter(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Typer's own, which takes at least 50 columns and keeps 32 of them for the options' names."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        super().__init__(indent_increment, width, max_width)
        self.width: int = min(self.width, max(shutil.get_terminal_size().columns - 2, LEAST))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        if self.width >= NARROW:
            super().write_dl(rows, col_max, col_spacing)
            return
        indent = " " * (self.current_indent + 2)
        folded = [(_folded(name, self.width - len(indent), indent), text) for name, text in rows]
        super().write_dl(folded, 2, col_spacing)


def _folded(name: str, width: int, indent: str) -> str:
    """An option's name and values in lines of so many columns, cut after spaces and bars."""
    lines = [""]
    for piece in re.split(r"(?<=[ |])", name):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return f"\n{indent}".join(line.rstrip() for line in lines)


class _Context(typer.Context):
    formatter_class = _Formatter


class Command(TyperCommand):
    """A command with such help."""

    context_class = _Context


class Group(TyperGroup):
    """A group of commands with such help."""

    context_class = _Context


def print_fitting(table: "Table") -> None:
    """Print a table to stdout; where it is too wide for the terminal, a paragraph for each row."""
    from rich.console import Console as RichConsole
    from rich.measure import Measurement
    from rich.padding import Padding

    stdout = RichConsole()
    if Measurement.get(stdout, stdout.options.update(width=10_000), table).maximum <= stdout.width:
        stdout.print(table)
        return
    titles = [str(column.header) for column in table.columns]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        told = "; ".join(f"{title}: {cell}" for title, cell in zip(titles, cells, strict=True) if str(cell))
        stdout.print(Padding(told, (0, 0, 1, 0)), style=row.style, markup=False, highlight=False)
