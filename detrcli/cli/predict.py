"""`detr predict`: images in, detections and annotated images out."""

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..checkpoints.bundled import sample_image
from ..checkpoints.names import DEFAULT_MODEL, DEMO_MODEL
from ..errors import ImageError, OutputError, UsageError
from ..images.sources import STDIN, ImageReference, Sources
from ..images.urls import display_name
from ..outputs.formats import FORMATS
from ..outputs.shards import parse_shard
from ..signals import Interruption
from .console import Console, printable, show_warnings
from .exit_codes import INTERRUPTED, SOME_FAILED
from .hub import quiet_hub_logging
from .options import (
    ClassNames,
    Device,
    ImageSize,
    LogJson,
    Model,
    Offline,
    Overwrite,
    Precision,
    Quiet,
    Revision,
    Verbose,
    Workers,
    choices,
    expand_user,
    load_class_names,
    parse_size,
)

if TYPE_CHECKING:
    from ..datasets.coco_ids import CocoIds
    from ..detector import Detector, Outcome
    from ..images.decode import ImageFile
    from ..inference.batch_size import BatchSize
    from ..outputs.run import OutputRun
    from ..timing import Clock
    from .report import Done

Indexed = tuple[int, ImageReference]
NO_MEMORY = "not enough memory to annotate it or to write its files"


def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            callback=expand_user,
            help="Images, folders, globs, URLs, or - for a list on stdin.",
        ),
    ] = None,
    files_from: Annotated[
        list[Path] | None,
        typer.Option("--files-from", metavar="FILE", callback=expand_user, help="A text file of paths. Repeatable."),
    ] = None,
    from0: Annotated[
        bool, typer.Option("-0", "--from0", help="Lists have a NUL byte after each path, not a line end.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    class_names: ClassNames = None,
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", min=0, max=1, help="Keep what scores above this.")
    ] = 0.5,
    classes: Annotated[
        list[str] | None, typer.Option("--class", "-c", metavar="NAME", help="Keep only this class. Repeatable.")
    ] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="Keep only so many for an image, the best.")] = None,
    device: Device = "auto",
    size: ImageSize = None,
    precision: Precision = "auto",
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            callback=lambda text: _checked_batch_size(text),
            help="Images of one shape to run at once; auto finds out what is fastest.",
        ),
    ] = "auto",
    workers: Workers = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse images of more pixels than this.  [default: 178956970]"),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=expand_user, help="Folder for annotated images and files.")
    ] = Path("detections"),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw what was found onto copies.")] = True,
    font: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=expand_user, help="Font for class names.  [default: one with their letters]"
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        choices(
            *("--format", "-f"),
            values=FORMATS,
            metavar="FORMAT",
            help=f"Write this format, too; repeatable: {', '.join(FORMATS)}.",
        ),
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Prefix of image paths in Label Studio tasks, such as /data/local-files/?d=."),
    ] = None,
    image_ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=expand_user,
            help="A COCO file whose image and category ids coco and coco-results use.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go down into folders' folders.")] = False,
    resume: Annotated[
        bool | None,
        typer.Option("--resume/--no-resume", help="Go on where a run into the same folder was stopped, or begin anew."),
    ] = None,
    overwrite: Overwrite = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Take part I of N, counted from 0, of the images; see `detr merge`."),
    ] = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Find objects in images.

    On a terminal, detections are shown and the annotated image is named. In a pipe, stdout carries one JSON object per
    image. Exit codes: 0 all well, 1 some images failed, 2 wrong usage or no model, 130 interrupted, 143 terminated.
    """
    console = Console(quiet=quiet, verbose=verbose, as_json=log_json)
    show_warnings(console)
    if not sources and not files_from:
        if model != DEMO_MODEL:
            raise UsageError(f"name images to look at; `detr predict --model {DEMO_MODEL}` has one of its own")
        sources = [str(sample_image())]
    images = Sources(
        tuple(sources or ()), recursive, output, tuple(map(str, files_from or ())), separator=b"\0" if from0 else b"\n"
    )
    part = parse_shard(shard) if shard is not None else None
    if resume and not draw and not formats:
        raise UsageError("--resume goes on with runs that write files; name a --format, or leave --no-draw out")
    if draw and images.overlaps(output):
        raise UsageError(
            f"annotated images in {output} would overwrite the images; choose another --output, or use --no-draw"
        )
    ids = _coco_ids(image_ids, formats or ())
    if image_root is not None and "label-studio" not in (formats or ()):
        raise UsageError("--image-root goes with --format label-studio")
    references = iter(images)
    listed = STDIN in images.names or bool(files_from)
    first = list(islice(references, 1 if listed else 2))  # who writes a list may wait for what becomes of the first
    passes_over = images.skips_outputs()
    if not first:
        if listed:
            console.info("the list names no images")
            return
        shallow = not recursive and any(map(os.path.isdir, images.names))
        deeper = "; --recursive searches folders in folders too" if shallow else ""
        passed = f" beside those in {output}, the output folder, which is passed over" if passes_over else ""
        raise UsageError(f"no images in {', '.join(map(display_name, images.names))}{passed}{deeper}")
    if passes_over:
        console.detail(printable(f"{output} is passed over, for the outputs go there"))
    many = listed or len(first) > 1

    from ..images.fonts import Fonts

    fonts = Fonts(None if font is None else str(font))
    quiet_hub_logging(model, console)
    began = time.perf_counter()
    from ..checkpoints.find import weight_files
    from ..classes import used_labels
    from ..detections import DetectionFilter, labels_of
    from ..detector import load
    from ..files import digest_of
    from ..host import keep_freed_memory
    from ..images.decode import open_image_file, pixel_limit
    from ..outputs.run import OutputRun, Plan, files_for_all
    from ..timing import Clock
    from .report import Report

    keep_freed_memory()
    detector = load(
        model,
        device=device,
        precision=precision,
        size=parse_size(size),
        revision=revision,
        offline=offline,
        class_names=load_class_names(class_names),
    )
    console.detail(
        f"{detector.name} on {detector.backend.description}, ready after {time.perf_counter() - began:.1f} s"
    )
    for note in detector.notes:
        console.detail(printable(f"{detector.name}: {note}"))
    wanted = DetectionFilter(threshold, labels_of(classes, detector.class_names) if classes else None, max_detections)
    category_ids = ids.category_ids(detector.class_names) if ids else None
    if category_ids is not None:
        unknown = [repr(name) for label, name in used_labels(detector.class_names) if category_ids[label] is None]
        if unknown:
            more = ", …" if len(unknown) > 5 else ""
            console.info(
                printable(
                    f"left out of coco and coco-results, for {image_ids} has no such category: "
                    f"{', '.join(unknown[:5])}{more}"
                )
            )

    def mine(all_images: Iterable[ImageReference]) -> Iterator[Indexed]:
        return (one for one in enumerate(all_images) if part is None or part.takes(one[1].relative.as_posix()))

    labelling = None
    lists_failures = many or part is not None or bool(resume)
    keep = lists_failures or bool(files_for_all(formats or (), only_over_images=True))
    if draw or formats:
        answers = {
            "threshold": threshold,
            "classes": classes,
            "max_detections": max_detections,
            "size": size,
            "max_pixels": max_pixels,
            "device": ", ".join(sorted({backend.device_type for backend in detector.backends})),
            "precision": detector.backend.precision,
            "font": None if font is None else str(font),
        }
        plan = Plan(
            model=detector.name,
            digest=digest_of(*weight_files(detector.weights)) if keep and detector.weights else "",
            class_names=detector.class_names,
            root=images.root(),
            shard=part,
            formats=tuple(dict.fromkeys(formats or ())),
            draw=draw,
            answers=answers,
            image_root=image_root or "",
            image_ids=ids.digest if ids else "",
            category_ids=category_ids,
        )
        labelling = OutputRun(
            output,
            plan,
            keep=keep,
            list_failures=lists_failures,
            resume=resume,
            fonts=fonts,
            overwrite=overwrite,
            coming=lambda: mine(images if images.listable else first),
            listable=images.listable,
        )

    def remaining(all_images: Iterable[ImageReference]) -> Iterator[Indexed]:
        indexed = mine(ids.with_ids(all_images) if ids else all_images)
        return labelling.remaining(indexed) if labelling is not None else indexed

    def open_image(source: Indexed) -> "ImageFile":
        if ids:
            ids.require_id(source[1])
        return open_image_file(source[1].location, clock)

    clock, interruption = Clock(), Interruption()
    report = Report(console, output if labelling else None, many=many, before=labelling.before if labelling else 0)
    pipeline = detector.stream(
        remaining(chain(first, references)),
        wanted,
        open_image=open_image,
        then=_finisher(detector.name, labelling, clock),
        batch_size=_batch_size(batch_size, detector),
        workers=workers,
        many=many,
        keep_images=draw,
        clock=clock,
    )
    count = None if not images.countable else lambda: sum(1 for _ in remaining(images))
    try:
        with ExitStack() as stack:
            stack.enter_context(pixel_limit(max_pixels))
            stack.enter_context(report.showing(count))
            stack.enter_context(interruption.listen(pipeline.stop))
            for done in stack.enter_context(closing(iter(pipeline))):
                if labelling is not None:
                    labelling.add(done.index, done.result)
                report.take(done)
        kinds = labelling.close(finished=interruption.signal is None) if labelling is not None else Counter()
    except OutputError as error:
        raise OutputError(f"{error}; --resume goes on from there" if keep else str(error)) from error
    except KeyboardInterrupt:  # the second one: at once, though threads are at work
        _leave(INTERRUPTED)
    report.summarise(clock, output / labelling.failures if labelling is not None and kinds else None)
    if interruption.signal is not None:
        if labelling is not None and keep:
            console.info("stopped; the same command with --resume goes on")
        interruption.reraise()
    if report.failed or kinds:
        raise typer.Exit(SOME_FAILED)


def _coco_ids(file: Path | None, formats: Sequence[str]) -> "CocoIds | None":
    if file is None:
        return None
    if not {"coco", "coco-results"}.intersection(formats):
        raise UsageError("--image-ids goes with --format coco or coco-results")
    from ..datasets.coco_ids import read_coco_ids

    return read_coco_ids(file)


def _finisher(model: str, labelling: "OutputRun | None", clock: "Clock") -> "Callable[[Outcome[Indexed]], Done]":
    """What is done with each image once it was looked at, in any thread."""
    from ..outputs.journal import Failure
    from ..outputs.record import labelled
    from .report import Done

    def finish(outcome: "Outcome[Indexed]") -> Done:
        index, reference = outcome.source
        try:
            if isinstance(outcome.result, ImageError):
                raise outcome.result
            relative = reference.relative.as_posix()
            result = labelled(reference.path, relative, model, outcome.result, reference.image_id)
            annotated = None
            if labelling is not None:
                annotated = labelling.write(reference, outcome.image, outcome.result, result, clock)
            return Done(index, result, annotated)
        except ImageError as error:
            return Done(index, Failure(reference.path, error.kind, str(error)))
        except MemoryError:
            return Done(index, Failure(reference.path, "too large", f"{reference.path}: {NO_MEMORY}"))

    return finish


def _batch_size(text: str, detector: "Detector") -> "BatchSize":
    from ..inference.batch_size import BatchSize

    if text == "auto":
        return BatchSize(detector.backend.batch_size, grows=detector.backend.grows)
    return BatchSize(int(text))


def _checked_batch_size(text: str) -> str:
    if text != "auto" and not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise typer.BadParameter(f"{text!r} is neither auto nor a number of images.")
    return text


def _leave(code: int) -> NoReturn:
    """End the process without waiting for its threads."""
    sys.stderr.flush()
    os._exit(code)
