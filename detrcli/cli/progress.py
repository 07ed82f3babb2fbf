"""Progress of long commands: a bar on a terminal, else a line a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from .console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import Task
    from rich.text import Text

INTERVAL = 60.0
"""Seconds between two lines where no bar is shown."""


class Progress:
    """Progress of a command; see `show_progress`.

    Args:
        console: where lines are written.
        bar: bar to move; None writes lines instead.
    """

    def __init__(self, console: Console, bar: "Bar | None" = None) -> None:
        self._console, self._bar = console, bar
        self._task = ""
        self._last_line = monotonic()

    def update(
        self, done: int, total: int | None, task: str = "", *, note: str = "", line: str | None = None, **fields: Any
    ) -> None:
        """Show how much of a task is done.

        Args:
            done: number of images or steps done.
            total: number of all, or None if unknown.
            task: name of the task; when it changes, the bar starts again.
            note: text that follows the name of the task.
            line: text where no bar is shown.  [default: task and note with done and total]
            fields: figures of the line in JSON.  [default: done and total]
        """
        if self._bar is not None:
            (row,) = self._bar.task_ids
            if task != self._task:
                self._task = task
                self._bar.reset(row)
            self._bar.update(row, completed=done, total=total, description=task + note)
        elif monotonic() - self._last_line > INTERVAL:
            self._last_line = monotonic()
            fields = fields or {"done": done, "total": total}
            self._console.info(line or f"{task}{note}: {done} of {total}", "progress", **fields)


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Show a command's progress: as a bar where the console shows one, else as a line a minute."""
    if not console.shows_progress:
        yield Progress(console)
        return
    with _bar() as bar:
        console.live = bar.console
        try:
            yield Progress(console, bar)
        finally:
            console.live = None


def _bar() -> "Bar":
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: "Task") -> "Text":
            parts = []
            if task.speed:
                parts.append(f"{task.speed:.1f} a second")
            if task.time_remaining is not None:
                parts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
            return Text(", ".join(parts))

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace())
    stderr = RichConsole(stderr=True)
    bar = Bar(*columns, console=stderr, redirect_stdout=False, redirect_stderr=False, transient=True)
    bar.add_task("", total=None)
    return bar
