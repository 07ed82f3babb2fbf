"""What `detr predict` shows for each image and at the end."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..files import as_output_error
from ..images.header import INSTALL_HEIF, NEEDS_HEIF
from ..outputs.record import Failure, ImageResult, Outcome
from .console import Console, counted, discard_stdout, printable
from .hints import add_hint
from .progress import Progress, show_progress

if TYPE_CHECKING:
    from ..timing import Clock

NAMED = 6
"""Number of classes that a summary names, the most frequent."""


class Report:
    """Shows the outcome of each image, and counts.

    Args:
        console: console for messages.
        output: output folder, or None if no files are written.
        many: whether there may be more than one image.
        before: number of images that were done before the run was resumed.
    """

    def __init__(self, console: Console, output: Path | None, *, many: bool, before: int) -> None:
        self._console, self._output, self._many, self._before = console, output, many, before
        self._progress: Progress | None = None
        self._total: int | None = None
        self._done = 0
        self._failed: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._began = time.perf_counter()

    @property
    def failed(self) -> int:
        """Number of images that failed."""
        return self._failed.total()

    @contextmanager
    def showing(self, count: Callable[[], int] | None) -> Iterator[None]:
        """Show a progress bar if there are many images and stderr is a terminal.

        Args:
            count: counts the images, which may take a while; None if they cannot be counted.
        """
        if not self._many:
            yield
            return
        if count is not None and self._console.shows_progress:
            Thread(target=self._count_up, args=(count,), daemon=True).start()
        with show_progress(self._console) as self._progress:
            yield

    def take(self, outcome: Outcome) -> None:
        """Show the outcome of an image."""
        result = outcome.result
        if isinstance(result, Failure):
            if result.kind != NEEDS_HEIF or not self._many:  # the summary counts them
                reason = add_hint(result.reason, outcome.error) if outcome.error else result.reason
                self._console.error(reason, path=result.path, kind=result.kind)
            self._failed[result.kind] += 1
        else:
            self._show(result, outcome.annotated)
            self._done += 1
            self._found.update(one.label for one in result.detections)
        if self._progress is not None:
            count = self._done + self.failed
            rate = count / (time.perf_counter() - self._began)
            self._progress.update(
                count,
                self._total,
                note=f"{self.failed} failed" if self._failed else "",
                line=f"{counted(count, 'image')}, {self.failed} failed, {rate:.1f} per second",
                images=self._done,
                failed=self.failed,
                rate=rate,
            )

    def summarize(self, clock: "Clock", failures: Path | None) -> None:
        """Summarize the run, if there were many images or some failed.

        Args:
            clock: time of each stage.
            failures: path of the list of failures, if there is one.
        """
        if not self._many and not self._failed:
            return
        if self._many and (unread := self._failed[NEEDS_HEIF]):
            text = f"{counted(unread, 'HEIC image')} cannot be read without pillow-heif: {INSTALL_HEIF}"
            self._console.error(text, kind=NEEDS_HEIF)
        seconds = time.perf_counter() - self._began
        parts = [counted(self._done, "image"), counted(self._found.total(), "detection") + _most(self._found)]
        if self._before:
            parts.insert(1, f"{self._before} done earlier")
        if self._failed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._failed.most_common())
            parts.append(f"{self.failed} failed ({kinds}{f'; see {failures}' if failures else ''})")
        if self._done:
            parts.append(f"{seconds:.1f} s ({self._done / seconds:.1f} per second)")
            if self._output is not None:
                parts.append(f"outputs in {self._output}")
        self._console.info(
            printable(", ".join(parts)),
            "summary",
            images=self._done,
            before=self._before,
            detections=dict(self._found),
            failed=dict(self._failed),
            seconds=seconds,
            stages=dict(clock.seconds),
        )
        if self._many and self._done and not self._console.as_json:
            stages = ", ".join(f"{stage} {taken:.1f} s" for stage, taken in clock.seconds.items())
            self._console.info(f"time of all threads: {stages}")

    def _show(self, result: ImageResult, annotated: Path | None) -> None:
        if not sys.stdout.isatty():
            try:
                with as_output_error(Path("stdout")):
                    sys.stdout.write(json.dumps(result.as_record()) + "\n")
                    sys.stdout.flush()
            except OutputError:
                discard_stdout()
                raise
        elif self._console.quiet:
            return
        elif self._many:
            counts = Counter(one.label for one in result.detections)
            found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
            self._print_line(printable(f"{result.path}: {found}"))
        else:
            from .table import print_detections

            print_detections(result)
            if annotated is not None:
                self._print_line(f"annotated image: {printable(str(annotated))}")

    def _print_line(self, text: str) -> None:
        if self._console.live is not None:
            self._console.info(text)
        else:
            print(text)

    def _count_up(self, count: Callable[[], int]) -> None:
        self._total = count()


def _most(found: Counter[str]) -> str:
    if not found:
        return ""
    named = [f"{count} {name}" for name, count in found.most_common(NAMED)]
    return f" ({', '.join(named)}{', …' if len(found) > NAMED else ''})"
