"""`detr export`: write a model as one file for other runtimes."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..checkpoints.find import ONNX_SUFFIX, WEIGHTS
from ..checkpoints.names import DEFAULT_MODEL, known_model
from ..errors import UsageError
from ..export import DEFAULT_OPSET, OPSETS
from ..signals import sigterm_as_exception
from . import options
from .console import Console, printable, show_warnings
from .loading import quiet_hub_logging


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
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(metavar="PRECISION", help="fp32 or fp16.")] = "fp32",
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
    console = show_warnings(Console(quiet=quiet, verbose=verbose, as_json=log_json))
    quiet_hub_logging(model, console)
    from ..checkpoints.find import find
    from ..checkpoints.load import load_checkpoint
    from ..export.onnx import export_onnx
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
    with sigterm_as_exception(), enough_memory("this machine", "for this export"):
        exported = export_onnx(
            loaded,
            Path(name) if file is None else file / name if into_folder else file,
            source=known.repo or known.name if known else _source(model),
            license=known.license if known else "",
            postprocess=not no_postprocess,
            batch_size=None if batch_size == "dynamic" else int(batch_size),
            precision=precision,
            opset=opset,
        )
    console.info(
        f"{printable(str(exported.path))}: {exported.nodes} nodes, {exported.bytes / 1e6:.1f} MB; {exported.matching} "
        f"of {exported.compared} predictions match PyTorch's within {exported.difference:.1g} in score and relative box"
    )
    if opset != DEFAULT_OPSET:
        console.info(
            f"CUDA has no kernels for some operators of opset {opset}, which then run on the CPU; it has all of opset "
            f"{DEFAULT_OPSET}"
        )
    if not no_postprocess:
        console.info(f"try it: detr predict IMAGE --model {printable(shlex.quote(str(exported.path)))}")


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
