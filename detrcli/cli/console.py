"""Talk to a person, or to a program, on stderr; stdout is for data."""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import DetrWarning
from .hints import with_hint

if TYPE_CHECKING:
    from rich.console import Console

SAY_AFTER = 60.0
"""Seconds from one line on how it goes to the next, where there is no bar to see it by."""


LONGEST_LINE = 4000
"""Characters of a line on stderr; a longer one, of a dataset or a model with endless names, is cut off."""


def printable(text: str) -> str:
    """Text in one line that any terminal can show: what is not printable is escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def counted(number: int, thing: str) -> str:
    """A number of things in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def give_up_stdout() -> None:
    """Write no more to it: what could not be written waits, and would fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Talk:
    """What a command says beside its data.

    Args:
        quiet: say nothing but complaints.
        verbose: say more.
        as_json: say each thing as one JSON object in a line, `event` and `text` in it.
    """

    def __init__(self, *, quiet: bool, verbose: bool, as_json: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.as_json = as_json
        self.live: Console | None = None
        """The console of a progress bar that is being shown, above which all has to be said."""
        self._said = monotonic()

    @property
    def shows_bars(self) -> bool:
        """Whether there is someone who sees a progress bar, and wants to."""
        return not self.quiet and not self.as_json and sys.stderr.isatty()

    def say(self, text: str, event: str = "message", **facts: Any) -> None:
        """Say a line, unless quiet; to a program the facts, too."""
        if not self.quiet:
            self._print(text, event, facts)

    def progress(self, text: str, **facts: Any) -> None:
        """Say a line on how it goes, unless quiet, once a minute, and not where a bar shows it."""
        if self.live is None and monotonic() - self._said > SAY_AFTER:
            self._said = monotonic()
            self.say(text, "progress", **facts)

    def detail(self, text: str) -> None:
        """Say a line if verbose."""
        if self.verbose:
            self._print(text, "detail", {})

    def error(self, text: str, **facts: Any) -> None:
        """Say in one line what went wrong, always; to a program the facts, too."""
        self._print(f"detr: {printable(text)}", "error", facts)

    def _print(self, text: str, event: str, facts: Mapping[str, Any]) -> None:
        if len(text) > LONGEST_LINE:
            text = f"{text[: LONGEST_LINE - 1]}…"
        if self.as_json:
            print(json.dumps({"event": event, "text": text, **_finite(facts)}), file=sys.stderr)
        elif self.live is None:
            print(text, file=sys.stderr)
        else:
            self.live.print(text, markup=False, highlight=False, soft_wrap=True)


def _finite(facts: Mapping[str, Any]) -> dict[str, Any]:
    """With None for NaN and infinity, which JSON does not have."""
    return {name: None if isinstance(fact, float) and not isfinite(fact) else fact for name, fact in facts.items()}


def show_warnings(talk: Talk) -> None:
    """From now on say our own warnings in a line, and, only if verbose, others' and what our own modules log."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        talk.say(printable(with_hint(message) if isinstance(message, DetrWarning) else str(message)))

    if not talk.verbose:
        warnings.simplefilter("ignore")
    warnings.simplefilter("always", DetrWarning)
    warnings.showwarning = show
    if talk.verbose:
        _show_details(talk)


def _show_details(talk: Talk) -> None:
    import logging

    class Details(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            talk.detail(printable(record.getMessage()))

    logger = logging.getLogger(__package__.partition(".")[0])
    logger.handlers = [Details()]
    logger.setLevel(logging.INFO)
