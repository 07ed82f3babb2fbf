"""`detr export`: a model as one file for other runtimes."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..checkpoints.find import ONNX_SUFFIX, WEIGHTS
from ..checkpoints.names import DEFAULT_MODEL, known_model
from ..errors import UsageError
from ..export.opsets import DEFAULT_OPSET, check_opset
from ..signals import sigterm_as_exception
from .console import Console, printable, show_warnings
from .hub import quiet_hub_logging_for
from .options import (
    ClassNames,
    ImageSize,
    LogJson,
    Model,
    Offline,
    Quiet,
    Revision,
    Verbose,
    at_home,
    names_in,
    parse_size,
)


def export(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", callback=at_home, help="Where to.  [default: the model's name with .onnx]"),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX, the only format there is.")] = False,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    class_names: ClassNames = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bare network: normalised pixels in, logits and boxes out.")
    ] = False,
    batch: Annotated[
        str, typer.Option(metavar="N|dynamic", help="How many images the file takes at once; dynamic: any number.")
    ] = "dynamic",
    size: ImageSize = None,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="What the network computes in.")] = "fp32",
    opset: Annotated[
        int, typer.Option(help="Version of ONNX's operators; at 18 CUDA runs them all, from 23 on attention is one.")
    ] = DEFAULT_OPSET,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Write a model as an ONNX file that takes 8-bit images and gives finished detections.

    `detr predict --model FILE` runs it, as does any program with ONNX Runtime. Nothing is written unless ONNX Runtime
    gives nearly all of PyTorch's answers; you are told how many, and how near they are. Exit codes: 0 all well, 2 wrong
    usage, no such model, or other answers, 130 interrupted, 143 terminated.
    """
    if not onnx:
        raise UsageError("say what to write: `detr export --onnx`")
    if model.lower().endswith(ONNX_SUFFIX):
        raise UsageError(f"{model} is an ONNX file already; name the model it was made of")
    if batch != "dynamic" and not (batch.isdecimal() and int(batch)):
        raise UsageError(f"--batch takes a number or dynamic, not {batch!r}")
    into = file is not None and os.path.isdir(file)
    if file is not None and not into and file.suffix.lower() != ONNX_SUFFIX:
        raise UsageError(f"{file} does not end in {ONNX_SUFFIX}, by which its kind is known")
    check_opset(opset)
    console = Console(quiet=quiet, verbose=verbose, as_json=log_json)
    show_warnings(console)
    quiet_hub_logging_for(model, console)
    from ..checkpoints.find import find
    from ..checkpoints.load import load_checkpoint
    from ..export.onnx import export_onnx
    from ..inference.memory import enough_memory

    loaded = load_checkpoint(
        find(model, revision=revision, offline=offline), size=parse_size(size), class_names=names_in(class_names)
    )
    for note in loaded.notes:
        console.detail(printable(f"{loaded.name}: {note}"))
    name = _file_name(loaded.name, model)
    known = known_model(model)
    with sigterm_as_exception(), enough_memory("this machine", "to export that; use a smaller --batch or --image-size"):
        exported = export_onnx(
            loaded,
            Path(name) if file is None else file / name if into else file,
            source=known.repo or known.name if known else _source(model),
            license=known.license if known else "",
            raw=raw,
            batch=None if batch == "dynamic" else int(batch),
            precision=precision,
            opset=opset,
        )
    console.info(
        f"{printable(str(exported.path))}: {exported.nodes} nodes, {exported.bytes / 1e6:.1f} MB; {exported.same} of "
        f"{exported.compared} answers are PyTorch's, within {exported.difference:.1g} in score and relative box"
    )
    if opset != DEFAULT_OPSET:
        console.info(
            f"where CUDA runs the file, the CPU runs some operators of opset {opset}, for want of kernels; there are "
            f"kernels for all of opset {DEFAULT_OPSET}"
        )
    if not raw:
        console.info(f"try it: detr predict IMAGE --model {printable(shlex.quote(str(exported.path)))}")


def _file_name(name: str, model: str) -> str:
    """After the model: a file that is only called so, as in the Hub's layout, after its folder."""
    stem = Path(name).name
    if f"{stem}.safetensors" in WEIGHTS or f"{stem}.bin" in WEIGHTS:
        stem = Path(model).absolute().parent.name
    return stem + ONNX_SUFFIX


def _source(model: str) -> str:
    """Where its weights are from: of a file or folder no more than the name, for the rest is nobody's business."""
    path = Path(model).expanduser()
    return path.absolute().name if path.exists() else model
