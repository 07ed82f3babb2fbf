"""`detr predict`: detect objects in images."""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checkpoints.names import DEFAULT_MODEL
from ..errors import OutputError, UsageError
from ..outputs.formats import FORMATS
from ..outputs.shards import parse_shard
from ..signals import Interruption
from ..timing import Clock
from . import options
from .console import Console, printable, show_warnings
from .exit_codes import INTERRUPTED, SOME_FAILED
from .hints import with_hint
from .inputs import Inputs, open_image, parse_sources
from .loading import load_detector

if TYPE_CHECKING:
    from ..datasets.coco_ids import CocoIds
    from ..detections import DetectionFilter
    from ..detector import Detector
    from ..images.fonts import Fonts
    from ..images.sources import CocoId
    from ..inference.batch_size import BatchSize
    from ..inference.pipeline import OneByOne, Pipeline
    from ..outputs.record import IndexedReference, Outcome
    from ..outputs.run import Run
    from .report import Report


def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            callback=options.expand_user,
            help="Images, folders, globs or URLs; - reads a list from stdin.",
        ),
    ] = None,
    files_from: Annotated[
        list[Path] | None, options.path_option("--files-from", help="File that lists images (repeatable).")
    ] = None,
    from0: Annotated[
        bool, typer.Option("-0", "--from0", help="Entries of lists end with NUL bytes, as from find -print0.")
    ] = False,
    model: options.Model = DEFAULT_MODEL,
    revision: options.Revision = None,
    class_names: options.ClassNames = None,
    threshold: Annotated[
        float,
        typer.Option("--threshold", "-t", min=0, max=1, metavar="SCORE", help="Keep detections that score above this."),
    ] = 0.5,
    classes: Annotated[
        list[str] | None, typer.Option("--class", "-c", metavar="NAME", help="Keep only this class (repeatable).")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of detections per image.")
    ] = None,
    device: options.Device = "auto",
    size: options.ImageSize = None,
    precision: options.Precision = "auto",
    engine: options.Engine = "auto",
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            callback=lambda text: _checked_batch_size(text),
            help="Images per batch; auto finds the fastest size.",
        ),
    ] = "auto",
    workers: options.Workers = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refuse larger images.  [default: 178956970]")
    ] = None,
    output: Annotated[Path, options.path_option("--output", "-o", metavar="DIR", help="Output folder.")] = Path(
        "detections"
    ),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Write annotated images.")] = True,
    font: Annotated[
        Path | None, options.path_option(help="Font for class names.  [default: one that has them]")
    ] = None,
    formats: Annotated[
        list[str] | None,
        options.choices(
            *("--format", "-f"),
            values=FORMATS,
            metavar="FORMAT",
            help=f"Write files in this format (repeatable): {', '.join(FORMATS)}.",
        ),
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Prefix of image paths for label-studio, such as /data/local-files/?d=."),
    ] = None,
    image_ids: Annotated[
        Path | None, options.path_option(help="COCO file with the image and category ids for coco and coco-results.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders, too.")] = False,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Resume an interrupted run, or start over.")
    ] = None,
    overwrite: options.Overwrite = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Process shard I of N, counted from 0; see `detr merge`.")
    ] = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_json: options.LogJson = False,
) -> None:
    """Detect objects in images.

    Prints detections on a terminal, and a JSON object per image in a pipe. Annotated images go to the output folder.
    """
    console = show_warnings(Console(quiet=quiet, verbose=verbose, as_json=log_json))
    chosen = tuple(dict.fromkeys(formats or ()))
    _check_options(chosen, draw=draw, resume=resume, image_ids=image_ids, image_root=image_root)
    images = parse_sources(sources, files_from, from0=from0, recursive=recursive, output=output, draw=draw, model=model)
    inputs = Inputs.begin(images, parse_shard(shard) if shard is not None else None, _read_coco_ids(image_ids))
    if not inputs.first:
        console.info("the list names no images")
        return
    if images.skips_outputs():
        console.detail(printable(f"skipping {output}, the output folder"))
    from ..images.fonts import Fonts

    fonts = Fonts(None if font is None else str(font))  # a wrong one is refused before the model is loaded
    detector = load_detector(
        model,
        console,
        device=device,
        precision=precision,
        engine=engine,
        size=size,
        revision=revision,
        offline=offline,
        class_names=class_names,
    )

    from .report import Report

    clock, interruption = Clock(), Interruption()
    detection_filter = _detection_filter(detector, threshold, classes, max_detections)
    run = _start_run(
        output,
        detector,
        inputs,
        formats=chosen,
        draw=draw,
        prediction=_prediction(detector, threshold, classes, max_detections, size, max_pixels, font),
        category_ids=_category_ids(console, inputs.ids, detector),
        image_root=image_root or "",
        resume=resume,
        overwrite=overwrite,
        fonts=fonts,
        clock=clock,
    )
    pipeline = detector.stream(
        run.remaining(inputs.stream()),
        detection_filter,
        open_image=partial(open_image, ids=inputs.ids, clock=clock),
        write=run.write,
        batch_size=_batch_size(batch_size, detector),
        workers=workers,
        many=inputs.many,
        keep_images=draw,
        clock=clock,
    )
    report = Report(console, output if draw or chosen else None, many=inputs.many, before=run.before)
    failed = _process(pipeline, run, inputs, report, interruption, max_pixels)
    report.summarize(clock, run.failures if failed else None)
    _exit(console, run, interruption, failed=bool(report.failed or failed))


def _check_options(
    formats: Sequence[str], *, draw: bool, resume: bool | None, image_ids: Path | None, image_root: str | None
) -> None:
    """Refuse options that make no sense together."""
    if resume and not draw and not formats:
        raise UsageError("--resume needs a run that writes files; add a --format, or drop --no-draw")
    if image_ids is not None and not {"coco", "coco-results"}.intersection(formats):
        raise UsageError("--image-ids needs --format coco or coco-results")
    if image_root is not None and "label-studio" not in formats:
        raise UsageError("--image-root needs --format label-studio")


def _read_coco_ids(file: Path | None) -> "CocoIds | None":
    if file is None:
        return None
    from ..datasets.coco_ids import read_coco_ids

    return read_coco_ids(file)


def _category_ids(console: Console, ids: "CocoIds | None", detector: "Detector") -> "tuple[CocoId | None, ...] | None":
    """Category id of each class in the user's COCO file; say which classes it lacks."""
    if ids is None:
        return None
    from ..classes import used_labels

    category_ids = ids.category_ids(detector.class_names)
    unknown = [repr(name) for label, name in used_labels(detector.class_names) if category_ids[label] is None]
    if unknown:
        names = ", ".join(unknown[:5]) + ", …" * (len(unknown) > 5)
        console.info(printable(f"left out of coco and coco-results, because {ids.file} has no such category: {names}"))
    return category_ids


def _detection_filter(
    detector: "Detector", threshold: float, classes: list[str] | None, max_detections: int | None
) -> "DetectionFilter":
    from ..detections import DetectionFilter, labels_of

    labels = labels_of(classes, detector.class_names) if classes else None
    return DetectionFilter(threshold, labels, max_detections)


def _prediction(
    detector: "Detector",
    threshold: float,
    classes: list[str] | None,
    max_detections: int | None,
    size: str | None,
    max_pixels: int | None,
    font: Path | None,
) -> dict[str, Any]:
    """Return what `Plan.prediction` holds, with the device, precision and engine that `auto` became."""
    return {
        "threshold": threshold,
        "classes": classes,
        "max_detections": max_detections,
        "size": size,
        "max_pixels": max_pixels,
        "device": ", ".join(sorted({backend.device_type for backend in detector.backends})),
        "precision": detector.backend.precision,
        "engine": detector.backend.engine,
        "font": None if font is None else str(font),
    }


def _start_run(
    output: Path,
    detector: "Detector",
    inputs: Inputs,
    *,
    formats: tuple[str, ...],
    draw: bool,
    prediction: dict[str, Any],
    category_ids: "tuple[CocoId | None, ...] | None",
    image_root: str,
    resume: bool | None,
    overwrite: bool,
    fonts: "Fonts",
    clock: Clock,
) -> "Run":
    """Start the run that writes what was asked for, which may be nothing."""
    from ..checkpoints.find import weight_files
    from ..files import digest_of
    from ..outputs.plan import Plan, files_for_all
    from ..outputs.run import OutputRun, Run

    if not draw and not formats:
        return Run(detector.name)
    list_failures = inputs.many or inputs.shard is not None or bool(resume)
    resumable = list_failures or bool(files_for_all(formats, only_over_images=True))
    plan = Plan(
        model=detector.name,
        digest=digest_of(*weight_files(detector.weights)) if resumable and detector.weights else "",
        class_names=detector.class_names,
        root=inputs.sources.root(),
        shard=inputs.shard,
        formats=formats,
        draw=draw,
        prediction=prediction,
        image_root=image_root,
        image_ids=inputs.ids.digest if inputs.ids else "",
        category_ids=category_ids,
    )
    return OutputRun(
        output,
        plan,
        resumable=resumable,
        list_failures=list_failures,
        resume=resume,
        overwrite=overwrite,
        coming=inputs.listing,
        listable=inputs.sources.listable,
        fonts=fonts,
        clock=clock,
    )


def _process(
    pipeline: "Pipeline[IndexedReference, Outcome] | OneByOne[IndexedReference, Outcome]",
    run: "Run",
    inputs: Inputs,
    report: "Report",
    interruption: Interruption,
    max_pixels: int | None,
) -> Counter[str]:
    """Take all images through the pipeline until the first Ctrl-C or SIGTERM, and count failures as `Run.close` does.

    A second Ctrl-C ends the process.
    """
    from ..images.decode import pixel_limit

    count = (lambda: sum(1 for _ in run.remaining(inputs.listing()))) if inputs.sources.countable else None
    try:
        with ExitStack() as stack:
            stack.enter_context(pixel_limit(max_pixels))
            stack.enter_context(report.showing(count))
            stack.enter_context(interruption.listen(pipeline.stop))
            for outcome in stack.enter_context(closing(iter(pipeline))):
                run.add(outcome)
                report.take(outcome)
        return run.close(finished=interruption.signal is None)
    except OutputError as error:
        if not run.resumable:
            raise
        raise OutputError(f"{with_hint(error)}; continue with --resume") from error
    except KeyboardInterrupt:  # a second Ctrl-C, or one while the last files are written; do not wait for threads
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def _exit(console: Console, run: "Run", interruption: Interruption, *, failed: bool) -> None:
    """Exit as the signal that stopped the run asks for, or because images failed."""
    if interruption.signal is not None:
        if run.resumable:
            console.info("stopped; continue with the same command and --resume")
        interruption.reraise()
    if failed:
        raise typer.Exit(SOME_FAILED)


def _batch_size(text: str, detector: "Detector") -> "BatchSize":
    from ..inference.batch_size import BatchSize

    if text == "auto":
        return BatchSize(detector.backend.batch_size, grows=detector.backend.grows)
    return BatchSize(int(text))


def _checked_batch_size(text: str) -> str:
    if text != "auto" and not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise typer.BadParameter(f"{text!r} is neither auto nor a positive number.")
    return text
