"""Messages to the user on stderr; stdout is for data."""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..errors import DetrWarning
from .hints import with_hint

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

LONGEST_LINE = 4000
"""Characters of a line on stderr; longer ones are cut off."""


def printable(text: str) -> str:
    """Return the text with line breaks and other unprintable characters escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def counted(number: int, thing: str) -> str:
    """Return a number and its noun, in the plural unless the number is one."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def discard_stdout() -> None:
    """Discard what is still buffered for stdout; Python would fail again to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Writer of a command's messages.

    Args:
        quiet: write errors only.
        verbose: write details, too.
        as_json: write each message as a line of JSON with `event` and `text`.
    """

    def __init__(self, *, quiet: bool, verbose: bool, as_json: bool = False) -> None:
        self.quiet, self.verbose, self.as_json = quiet, verbose, as_json
        self.live: RichConsole | None = None
        """Console of the progress bar on display; messages are printed above the bar."""

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are shown: stderr is a terminal, and neither quiet nor JSON was asked for."""
        return not self.quiet and not self.as_json and sys.stderr.isatty()

    def info(self, text: str, event: str = "message", **fields: Any) -> None:
        """Write a line unless quiet; the fields appear in JSON only."""
        if not self.quiet:
            self._print(text, event, fields)

    def detail(self, text: str) -> None:
        """Write a line if verbose."""
        if self.verbose:
            self._print(text, "detail", {})

    def error(self, text: str, **fields: Any) -> None:
        """Write an error in one line, even if quiet; the fields appear in JSON only."""
        self._print(f"detr: {printable(text)}", "error", fields)

    def _print(self, text: str, event: str, fields: Mapping[str, Any]) -> None:
        if len(text) > LONGEST_LINE:
            text = f"{text[: LONGEST_LINE - 1]}…"
        if self.as_json:
            print(json.dumps({"event": event, "text": text, **_finite(fields)}), file=sys.stderr)
        elif self.live is None:
            print(text, file=sys.stderr)
        else:
            self.live.print(text, markup=False, highlight=False, soft_wrap=True)


def _finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with None for NaN and infinity, which JSON lacks."""
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in fields.items()}


def show_warnings(console: Console) -> Console:
    """Return the console that writes this package's warnings, and if verbose its log and the warnings of others."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.info(printable(with_hint(message) if isinstance(message, DetrWarning) else str(message)))

    if not console.verbose:
        warnings.simplefilter("ignore")
    warnings.simplefilter("always", DetrWarning)
    warnings.showwarning = show
    if console.verbose:
        _show_details(console)
    return console


def _show_details(console: Console) -> None:
    import logging

    class Details(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.detail(printable(record.getMessage()))

    logger = logging.getLogger(__package__.partition(".")[0])
    logger.handlers = [Details()]
    logger.setLevel(logging.INFO)
