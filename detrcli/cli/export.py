"""`detr export`: write a model as one file for other runtimes."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.find import ONNX_SUFFIX, WEIGHTS
from ..checkpoints.names import DEFAULT_MODEL, known_model
from ..errors import DatasetError, UsageError
from ..export import DEFAULT_OPSET, OPSETS
from ..signals import sigterm_as_exception
from . import options
from .console import Console, printable, show_warnings
from .loading import quiet_hub_logging
from .packages import require
from .progress import show_progress

if TYPE_CHECKING:
    from ..checkpoints.load import LoadedModel


def export(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            callback=options.expand_user,
            help="Output file or folder.  [default: the model's name with .onnx]",
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Same as --format onnx.")] = False,
    format: Annotated[
        Literal["onnx"] | None, typer.Option(metavar="FORMAT", help="File format: onnx, the only one.")
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    revision: options.Revision = None,
    class_names: options.ClassNames = None,
    no_postprocess: Annotated[
        bool,
        typer.Option(
            "--no-postprocess", help="Export the bare network: normalized pixels in, logits and relative boxes out."
        ),
    ] = False,
    batch_size: Annotated[
        str, typer.Option(metavar="N|dynamic", help="Images per batch; dynamic takes any number.")
    ] = "dynamic",
    size: options.ImageSize = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(metavar="PRECISION", help="fp32, fp16 or int8.")
    ] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            callback=options.expand_user,
            help="For int8: folder of typical images, or a dataset. Half of them, at most 300, calibrate; int8 is "
            "compared with fp32 on others.",
        ),
    ] = None,
    max_ap_loss: Annotated[
        float,
        typer.Option(min=0, max=100, metavar="POINTS", help="For int8 and a dataset: largest loss in points of AP."),
    ] = 2,
    opset: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="ONNX operator set. CUDA has kernels for all of 18; from 23 on, attention is one operator.",
        ),
    ] = DEFAULT_OPSET,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_json: options.LogJson = False,
) -> None:
    """Export a model to ONNX.

    The file takes resized images and returns detections; `detr predict --model FILE` runs it, as does any program with
    ONNX Runtime. It is only written if its predictions in ONNX Runtime match those in PyTorch.
    """
    if not (onnx or format):
        raise UsageError("no format was chosen; use `detr export --onnx`")
    if model.lower().endswith(ONNX_SUFFIX):
        raise UsageError(f"{model} is already an ONNX file; name the model that it was exported from")
    if batch_size != "dynamic" and not (batch_size.isdecimal() and int(batch_size)):
        raise UsageError(f"--batch-size takes a number or dynamic, not {batch_size!r}")
    if opset not in OPSETS:
        raise UsageError(f"--opset takes {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    into_folder = file is not None and os.path.isdir(file)
    if file is not None and not into_folder and file.suffix.lower() != ONNX_SUFFIX:
        raise UsageError(f"the name of {file} must end in {ONNX_SUFFIX}")
    if (precision == "int8") != (calibrate is not None):
        raise UsageError("int8 takes both --precision int8 and --calibrate IMAGES, a folder of typical images")
    if precision == "int8" and no_postprocess:
        raise UsageError("an int8 file is checked by its detections; leave out --no-postprocess")
    console = show_warnings(Console(quiet=quiet, verbose=verbose, as_json=log_json))
    quiet_hub_logging(model, console)
    if calibrate is not None:
        require("nncf", "pycocotools")
    from ..checkpoints.find import find
    from ..checkpoints.load import load_checkpoint
    from ..inference.memory import enough_memory

    with sigterm_as_exception():
        checkpoint = find(model, revision=revision, offline=offline)
    loaded = load_checkpoint(
        checkpoint, size=options.parse_size(size), class_names=options.load_class_names(class_names)
    )
    for note in loaded.notes:
        console.detail(printable(f"{loaded.name}: {note}"))
    name = _file_name(loaded.name, model)
    known = known_model(model)
    file = Path(name) if file is None else file / name if into_folder else file
    settings = {
        "source": known.repo or known.name if known else _source(model),
        "license": known.license if known else "",
        "batch_size": None if batch_size == "dynamic" else int(batch_size),
        "opset": opset,
    }
    with sigterm_as_exception(), enough_memory("this machine", "for this export"):
        if calibrate is not None:
            _export_int8(loaded, file, calibrate, console, max_ap_loss=max_ap_loss / 100, **settings)
        else:
            _export_float(loaded, file, console, postprocess=not no_postprocess, precision=precision, **settings)
    if opset != DEFAULT_OPSET:
        console.info(
            f"CUDA has no kernels for some operators of opset {opset}, which then run on the CPU; it has all of opset "
            f"{DEFAULT_OPSET}"
        )
    if not no_postprocess:
        console.info(f"try it: detr predict IMAGE --model {printable(shlex.quote(str(file)))}")


def _export_float(model: "LoadedModel", file: Path, console: Console, **settings: Any) -> None:
    from ..export.onnx import export_onnx

    exported = export_onnx(model, file, **settings)
    console.info(
        f"{printable(str(file))}: {exported.nodes} nodes, {exported.bytes / 1e6:.1f} MB; {exported.matching} "
        f"of {exported.compared} predictions match PyTorch's within {exported.difference:.1g} in score and relative box"
    )


def _export_int8(model: "LoadedModel", file: Path, calibrate: Path, console: Console, **settings: Any) -> None:
    from ..datasets import read_dataset
    from ..datasets.unlabeled import read_unlabeled
    from ..export.int8 import export_int8

    try:
        images = read_dataset(calibrate, "val")
    except DatasetError as error:
        if not calibrate.is_dir():
            raise
        images = read_unlabeled(calibrate)
        console.info(printable(f"AP is not measured ({error})"))
    for problem in images.problems:
        console.info(printable(problem))
    with show_progress(console) as progress:
        exported = export_int8(
            model,
            file,
            images,
            on_unreadable=lambda error: console.info(printable(str(error))),
            on_progress=progress.update,
            **settings,
        )
    console.info(
        f"{printable(str(file))}: {exported.bytes / 1e6:.1f} MB, {exported.bytes / exported.float_bytes:.2f} of fp32; "
        f"calibrated with {exported.calibrated} images"
    )
    ap = "" if exported.ap is None else "; AP {:.1f} → {:.1f}".format(*(100 * one for one in exported.ap))
    console.info(
        f"on {exported.compared} other images, int8 finds {exported.found} of the {exported.expected} objects of fp32, "
        f"with scores that differ by {exported.score_difference:.3f} on average{ap}"
    )


def _file_name(name: str, model: str) -> str:
    """Name of the file for a model: its own, or that of its folder if its weights have the name of the Hub's layout."""
    stem = Path(name).name
    if f"{stem}.safetensors" in WEIGHTS or f"{stem}.bin" in WEIGHTS:
        stem = Path(model).absolute().parent.name
    return stem + ONNX_SUFFIX


def _source(model: str) -> str:
    """Source of the weights for the metadata: for a file or folder only its name, since its path is private."""
    path = Path(model).expanduser()
    return path.absolute().name if path.exists() else model
