"""A progress bar on stderr with rate and time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from .console import Console


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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Pace())
    console = RichConsole(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False, transient=True) as progress:
        progress.add_task("", total=None)
        yield progress


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of known length where stderr is a terminal and the user wants to see it, else say a line at times.

    Returns:
        What is to be told how many are done.
    """
    if not console.shows_progress:
        yield lambda done: console.progress(f"{what}: {done} of {total}", done=done, total=total)
        return
    with progress_bar() as progress:
        task = progress.task_ids[0]
        progress.update(task, total=total, description=what)
        yield lambda done: progress.update(task, completed=done)
