"""`detr bench`: time models on this machine."""

import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..checkpoints.bundled import sample_image
from ..checkpoints.find import ONNX_SUFFIX
from ..checkpoints.names import DEFAULT_MODEL
from .console import Console, printable, show_warnings
from .loading import load_detector
from .options import ENGINES, ImageSize, LogJson, Offline, OneDevice, Quiet, Revision, Verbose, choices, path_option
from .progress import show_progress

if TYPE_CHECKING:
    from ..inference.engines import Engine
    from ..inference.torch import Precision
    from .benchmark import BenchmarkCase, Speed

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Models, as for `detr predict --model`.")
    ] = None,
    revision: Revision = None,
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option("--batch-size", min=1, metavar="N", help="Images per batch (repeatable).  [default: 1]"),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        choices(
            "--precision",
            values=PRECISIONS,
            metavar="PRECISION",
            help="fp32, fp16, bf16 or auto (repeatable).  [default: auto]",
        ),
    ] = None,
    engines: Annotated[
        list[str] | None,
        choices(
            "--engine",
            values=ENGINES,
            metavar="ENGINE",
            help=f"{', '.join(ENGINES[1:])} or auto, for ONNX files (repeatable).  [default: auto]",
        ),
    ] = None,
    device: OneDevice = "auto",
    size: ImageSize = None,
    image: Annotated[Path | None, path_option(help="Image to run on.  [default: a bundled one]")] = None,
    iterations: Annotated[int, typer.Option(min=1, metavar="N", help="Timed runs of each model.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON even on a terminal.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Measure the speed of models on one image.

    Times the network alone, and all steps from the file to the detections, with the models in turn. Prints a table on
    a terminal, JSON in a pipe.
    """
    console = show_warnings(Console(quiet=quiet, verbose=verbose, as_json=log_json))
    from ..inference.backend import Measurable
    from .benchmark import BenchmarkCase, measure

    cases = []
    for model in models or [DEFAULT_MODEL]:
        exported = model.lower().endswith(ONNX_SUFFIX)
        for engine, precision in product(
            cast("list[Engine]", (engines if exported else None) or ["auto"]),
            cast("list[Precision]", precisions or ["auto"]),
        ):
            detector = load_detector(
                model,
                console,
                device=device,
                precision=precision,
                engine=engine,
                size=size,
                revision=revision,
                offline=offline,
            )
            cases += [BenchmarkCase(detector, batch_size) for batch_size in batch_sizes or [1]]
    with show_progress(console) as progress:
        speeds = measure(
            cases, image or sample_image(), iterations, lambda done: progress.update(done, iterations, "iteration")
        )
    backends = {case.detector.backend.description: case.detector.backend for case in cases}
    places = {
        description: {"processor": backend.processor(), "product_gflops": backend.product_gflops()}
        for description, backend in backends.items()
        if isinstance(backend, Measurable)
    }
    if as_json or not sys.stdout.isatty():
        print(json.dumps(_to_json(cases, speeds, places)))
    else:
        _print_table(cases, speeds, places)


def _environment() -> dict[str, Any]:
    import platform

    from .. import __version__
    from ..host import threads

    used = [name for name in ("torch", "onnxruntime", "openvino") if name in sys.modules]
    return {
        "machine": platform.machine(),
        "threads": threads(),
        "versions": {"detrcli": __version__, "python": platform.python_version()}
        | {name: sys.modules[name].__version__ for name in used},
    }


def _to_json(cases: "list[BenchmarkCase]", speeds: "list[Speed]", places: dict[str, Any]) -> dict[str, Any]:
    return {
        **_environment(),
        "places": places,
        "results": [
            {
                "model": case.detector.name,
                "on": case.detector.backend.description,
                "batch": case.batch_size,
                "network": asdict(speed.network),
                "whole": asdict(speed.whole),
                "images_per_second": case.batch_size / speed.whole.median,
                "gflops": speed.gflops,
            }
            for case, speed in zip(cases, speeds, strict=True)
        ],
    }


def _print_table(cases: "list[BenchmarkCase]", speeds: "list[Speed]", places: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    from .table import print_fitting

    table = Table(box=SIMPLE_HEAD)
    for title in ("model", "on"):
        table.add_column(title)
    for title in ("batch", "network ms", "p95", "whole ms", "p95", "images/s", "GFLOP/s"):
        table.add_column(title, justify="right")
    for case, speed in zip(cases, speeds, strict=True):
        table.add_row(
            Text(printable(case.detector.name)),
            case.detector.backend.description,
            str(case.batch_size),
            *(_milliseconds(value) for part in (speed.network, speed.whole) for value in (part.median, part.p95)),
            f"{case.batch_size / speed.whole.median:.1f}",
            "–" if speed.gflops is None else f"{speed.gflops:.0f}",
        )
    environment = _environment()
    console = Terminal()
    print_fitting(table)
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    console.print("network: resized pixels to detections; whole: file to detections; median and p95 of a batch")
    console.print(f"{environment['machine']}, {environment['threads']} threads; {versions}", highlight=False)
    for description, place in places.items():
        rate = place["product_gflops"]
        product = "" if rate is None else f": a product of large matrices runs at {rate:.0f} GFLOP/s"
        console.print(f"{description} on {printable(place['processor'])}{product}", highlight=False, markup=False)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f}"
