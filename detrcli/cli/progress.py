"""A progress bar on stderr with rate and time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text


class _Pace(ProgressColumn):
    def render(self, task: Task) -> Text:
        parts = []
        if task.speed:
            parts.append(f"{task.speed:.1f} a second")
        if task.time_remaining is not None:
            parts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
        return Text(", ".join(parts))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a bar with a single task, of yet unknown length."""
    columns = (BarColumn(), MofNCompleteColumn(), _Pace())
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False, transient=True) as progress:
        progress.add_task("", total=None)
        yield progress
