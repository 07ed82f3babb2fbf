"""`detr predict`: pictures in, detections and drawings out."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from ..checkpoints.included import sample_picture
from ..checkpoints.names import DEFAULT_MODEL, DEMO_MODEL
from ..errors import ImageError, UsageError
from ..formats import FORMATS, Writer, open_writer
from ..images.sources import STDIN, ImageReference, Sources
from .console import Talk, printable, show_warnings
from .exit_codes import SOME_FAILED
from .hub import hush_hub_for
from .options import (
    BatchSize,
    Device,
    Model,
    Offline,
    PictureSize,
    Precision,
    Quiet,
    Revision,
    Verbose,
    each_of,
    parse_size,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..detections import Detections
    from ..detector import Outcome


def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Pictures, folders, globs, or - for a list of paths on stdin."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", min=0, max=1, help="Keep what scores above this.")
    ] = 0.5,
    classes: Annotated[
        list[str] | None, typer.Option("--class", "-c", metavar="NAME", help="Keep only this class. Repeatable.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Keep only so many for a picture, the best.")
    ] = None,
    device: Device = "auto",
    size: PictureSize = None,
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for drawings and files.")] = Path("detections"),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw what was found onto copies.")] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", metavar="|".join(FORMATS), callback=each_of(FORMATS), help="Write files. Repeatable."
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go down into folders' folders.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find objects in pictures.

    On a terminal you see what was found and where the drawing went. In a pipe, stdout carries one JSON object per
    picture. Exit codes: 0 all well, 1 some pictures failed, 2 wrong usage or no model, 130 interrupted.
    """
    talk = Talk(quiet=quiet, verbose=verbose)
    show_warnings(talk)
    if not sources:
        if model != DEMO_MODEL:
            raise UsageError(f"name pictures to look at; `detr predict --model {DEMO_MODEL}` has one of its own")
        sources = [str(sample_picture())]
    pictures = Sources(tuple(sources), recursive, exclude=output)
    if draw and pictures.hold(output):
        raise UsageError(f"drawings in {output} would overwrite the pictures; name another folder with --output")
    references = iter(pictures)
    first = list(islice(references, 2))
    if not first:
        if sources == [STDIN]:
            talk.say("stdin named no pictures")
            return
        deeper = "" if recursive else "; --recursive searches folders in folders too"
        raise UsageError(f"no pictures in {', '.join(sources)}{deeper}")

    hush_hub_for(model, talk)
    began = time.perf_counter()
    from ..detections import Wanted, labels_of
    from ..detector import load
    from ..images.decode import read_picture

    detector = load(
        model, device=device, precision=precision, size=parse_size(size), revision=revision, offline=offline
    )
    talk.detail(f"{detector.name} on {detector.backend.description}, ready after {time.perf_counter() - began:.1f} s")
    wanted = Wanted(threshold, labels_of(classes, detector.class_names) if classes else None, max_detections)

    with ExitStack() as stack:
        writers = [stack.enter_context(open_writer(name, output)) for name in dict.fromkeys(formats or ())]
        report = stack.enter_context(_reporting(talk, pictures, detector.name, output, draw, writers, len(first) > 1))
        for outcome in detector.stream(
            chain(first, references),
            wanted,
            read=lambda reference: read_picture(reference.path),
            batch_size=batch_size or detector.backend.batch_size,
            keep_pictures=draw,
        ):
            report.take(outcome)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


class _Report:
    """Shows, draws and writes what came of each picture, and counts."""

    def __init__(self, talk: Talk, model: str, output: Path, draw: bool, writers: Iterable[Writer], many: bool) -> None:
        self.talk = talk
        self.model = model
        self.output = output
        self.draw = draw
        self.writers = writers
        self.many = many
        self.progress: Progress | None = None
        self.done = 0
        self.failed = 0
        self.found = 0
        self.began = time.perf_counter()

    def take(self, outcome: "Outcome[ImageReference]") -> None:
        """Deal with one picture."""
        try:
            if isinstance(outcome.result, ImageError):
                raise outcome.result
            drawing = self._draw(outcome, outcome.result)
            for write in self.writers:
                write(outcome.source, self.model, outcome.result)
            self._show(outcome.source, outcome.result, drawing)
            self.done += 1
            self.found += len(outcome.result)
        except ImageError as error:
            self.talk.complain(str(error))
            self.failed += 1
        if self.progress is not None:
            self.progress.advance(self.progress.task_ids[0])

    def _draw(self, outcome: "Outcome[ImageReference]", detections: "Detections") -> Path | None:
        if outcome.picture is None:
            return None
        from ..draw import draw, save_drawing

        target = self.output / outcome.source.relative
        if target.exists() and os.path.samefile(target, outcome.source.path):
            raise ImageError(f"{outcome.source.path}: its drawing would overwrite it; choose another --output")
        return save_drawing(draw(outcome.picture, detections), outcome.picture, target)

    def _show(self, reference: ImageReference, detections: "Detections", drawing: Path | None) -> None:
        if not sys.stdout.isatty():
            from ..detections import as_record

            line = json.dumps(as_record(reference.path, self.model, detections))
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        elif self.talk.quiet:
            return
        elif self.many:
            counts = Counter(detections.names)
            found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
            self._print_line(f"{printable(reference.path)}: {found}")
        else:
            from .table import print_table

            print_table(detections)
            if drawing is not None:
                self._print_line(f"drawn to {printable(str(drawing))}")

    def _print_line(self, text: str) -> None:
        if self.talk.live is not None:
            self.talk.say(text)
        else:
            print(text)

    def summarise(self) -> None:
        """Say what came of all pictures."""
        seconds = time.perf_counter() - self.began
        parts = [_count(self.done, "picture"), _count(self.found, "detection")]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.done:
            parts.append(f"{seconds:.1f} s ({self.done / seconds:.1f} a second)")
            if self.draw or self.writers:
                parts.append(f"outputs in {printable(str(self.output))}")
        self.talk.say(", ".join(parts))


@contextmanager
def _reporting(
    talk: Talk, pictures: Sources, model: str, output: Path, draw: bool, writers: list[Writer], many: bool
) -> Iterator[_Report]:
    report = _Report(talk, model, output, draw, writers, many)
    with ExitStack() as stack:
        if many and not talk.quiet and sys.stderr.isatty():
            from .progress import progress_bar

            report.progress = stack.enter_context(progress_bar())
            talk.live = report.progress.console
            if pictures.countable:
                Thread(target=_count_up, args=(pictures, report.progress), daemon=True).start()
        try:
            yield report
        finally:
            talk.live = None
            stack.close()
            if many or report.failed:
                report.summarise()


def _count_up(pictures: Sources, progress: "Progress") -> None:
    progress.update(progress.task_ids[0], total=sum(1 for _ in pictures))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
