"""`detr eval`: average precision of a model on a labeled dataset."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.names import DEFAULT_MODEL
from ..files import atomic_file
from . import options
from .console import Console, printable, show_warnings
from .loading import load_detector
from .packages import require
from .progress import show_progress

if TYPE_CHECKING:
    from ..evaluation.average_precision import Evaluation

ROWS = 40
"""Number of classes in the table, the worst ones."""


def evaluate(
    dataset: options.DatasetPath,
    model: options.Model = DEFAULT_MODEL,
    split: Annotated[
        Literal["val", "train", "test"], typer.Option(metavar="val|train|test", help="Split of the dataset.")
    ] = "val",
    revision: options.Revision = None,
    class_names: options.ClassNames = None,
    device: options.Device = "auto",
    size: options.ImageSize = None,
    precision: options.Precision = "auto",
    engine: options.Engine = "auto",
    batch_size: options.BatchSize = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads that read images.  [default: the number of cores]")
    ] = None,
    strict: options.Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON even on a terminal.")] = False,
    save_predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, callback=options.expand_user, help="Write all detections as COCO results."
        ),
    ] = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_json: options.LogJson = False,
) -> None:
    """Evaluate a model on a labeled dataset: COCO's average precision.

    Classes are matched by name. Prints a table on a terminal, JSON in a pipe. Saved predictions have the ids of a COCO
    dataset; in other formats, images (sorted by path) and classes are numbered from 1.
    """
    require("pycocotools")
    from ..datasets import read_dataset
    from ..evaluation import average_precision

    console = show_warnings(Console(quiet=quiet, verbose=verbose, as_json=log_json))
    data = read_dataset(dataset, split, strict=strict)
    for problem in data.problems:
        console.info(printable(problem))
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
    count = len(data.examples)
    console.info(printable(f"{detector.name}, {count} images, on {detector.backend.description}"))
    with atomic_file(save_predictions) if save_predictions else nullcontext() as file:
        with show_progress(console) as progress:
            evaluation, predictions = average_precision.evaluate(
                detector,
                data,
                batch_size=batch_size or detector.backend.batch_size,
                workers=workers,
                on_progress=lambda done: progress.update(done, count, "evaluating"),
            )
        if file is not None:
            file.write(json.dumps(average_precision.coco_results(data, predictions)).encode())
    if as_json or not sys.stdout.isatty():
        print(json.dumps(_as_json(model, str(dataset), evaluation)))
    else:
        _print_table(evaluation)


def _as_json(model: str, dataset: str, evaluation: "Evaluation") -> dict[str, Any]:
    metrics = asdict(evaluation)
    classes = metrics.pop("classes")
    return {
        "model": model,
        "dataset": dataset,
        **{name: _finite(value) for name, value in metrics.items()},
        "classes": {name: {"ap": _finite(ap), "ap50": _finite(ap50)} for name, (ap, ap50) in classes.items()},
    }


def _finite(value: float) -> float | None:
    return None if value != value else value  # JSON has no NaN


def _print_table(evaluation: "Evaluation") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    from .table import print_fitting

    overall, classes = Table(box=SIMPLE_HEAD), Table(box=SIMPLE_HEAD)
    figures = {
        "AP": evaluation.ap,
        "AP50": evaluation.ap50,
        "AP75": evaluation.ap75,
        "small": evaluation.ap_small,
        "medium": evaluation.ap_medium,
        "large": evaluation.ap_large,
        "recall": evaluation.ar,
    }
    for title in figures:
        overall.add_column(title, justify="right")
    overall.add_row(*(_percent(value) for value in figures.values()))
    classes.add_column("class", overflow="fold")
    for title in ("AP", "AP50"):
        classes.add_column(title, justify="right", no_wrap=True)
    known = sorted((item for item in evaluation.classes.items() if item[1][0] == item[1][0]), key=lambda item: item[1])
    for name, (ap, ap50) in known[:ROWS]:
        classes.add_row(Text(printable(name)), _percent(ap), _percent(ap50))
    stdout = RichConsole()
    stdout.print(f"{evaluation.images} images, {evaluation.objects} objects; all figures in percent")
    print_fitting(overall)
    stdout.print(classes)
    if len(known) > ROWS:
        stdout.print(f"and {len(known) - ROWS} classes with a higher AP")


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"
