"""Options that several commands share."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from ..checkpoints.class_names import read_class_names
from ..checkpoints.names import KNOWN_MODELS
from ..errors import UsageError

if TYPE_CHECKING:
    from ..images.resize import Size

DEVICES = ("auto", "cpu", "cuda", "mps", "tensorrt", "openvino:GPU", "openvino:NPU")
ENGINES = ("auto", "onnxruntime", "openvino")


def complete(values: Collection[str]) -> Callable[[str], list[str]]:
    """Return a function that completes the beginning of a value for the shell."""

    def completions(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return completions


def choices(*names: str, values: Collection[str], help: str, metavar: str | None = None) -> Any:
    """Return a repeatable option that takes one of the values."""

    def check(given: list[str] | None) -> list[str]:
        for value in given or ():
            if value not in values:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(values)}.")
        return given or []

    metavar = metavar or "|".join(values)
    return typer.Option(*names, metavar=metavar, callback=check, autocompletion=complete(values), help=help)


def expand_user(value: Any) -> Any:
    """Expand `~` in a path or list of paths; shells do not after `--option=` or in quotes."""
    if isinstance(value, list):
        return [expand_user(one) for one in value]
    return value if value is None else type(value)(os.path.expanduser(value))


def path_option(*names: str, help: str, metavar: str = "FILE") -> Any:
    """Return an option that takes a path, or several."""
    return typer.Option(*names, metavar=metavar, callback=expand_user, help=help)


def _single_device(name: str) -> str:
    if "," in name:
        raise typer.BadParameter(f"this command uses a single device, not {name}.")
    return name


def _device_option(help: str, callback: Callable[[str], str] | None = None) -> Any:
    return typer.Option(metavar="DEVICE", callback=callback, autocompletion=complete(DEVICES), help=help)


Model: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=complete([model.name for model in KNOWN_MODELS]),
        help="Known name (see `detr models`), Hub repository (org/name), folder or file.",
    ),
]
Revision: TypeAlias = Annotated[
    str | None, typer.Option(metavar="REVISION", help="Branch, tag or commit of the Hub repository.")
]
Offline: TypeAlias = Annotated[bool, typer.Option("--offline", help="Use cached models only.")]
Device: TypeAlias = Annotated[
    str, _device_option("cpu, cuda, cuda:N, mps, tensorrt, openvino:NAME or auto; several GPUs as cuda:0,cuda:1.")
]
OneDevice: TypeAlias = Annotated[
    str, _device_option("cpu, cuda, cuda:N, mps, tensorrt, openvino:NAME or auto.", _single_device)
]
TrainingDevice: TypeAlias = Annotated[str, _device_option("cpu, cuda, cuda:N, mps or auto.", _single_device)]
ImageSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-size", metavar="N|WxH", help="Size that images are resized to.  [default: that of the model]"
    ),
]
Precision: TypeAlias = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option(metavar="PRECISION", help="fp32, fp16, bf16 or auto (the fastest supported)."),
]
Engine: TypeAlias = Annotated[
    Literal["auto", "onnxruntime", "openvino"],
    typer.Option(
        metavar="|".join(ENGINES), help="Engine for ONNX files; auto is OpenVINO on a CPU if it is installed."
    ),
]
BatchSize: TypeAlias = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Images per batch.  [default: 8 on CUDA, else 1]")
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Threads that decode, draw and write images.  [default: the number of cores]"
    ),
]
Overwrite: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files even if detr did not write them, or if they have changed or belong to other images.",
    ),
]
Strict: TypeAlias = Annotated[
    bool,
    typer.Option("--strict", help="Fail on images annotated without their EXIF rotation instead of skipping them."),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Print details.")]
ClassNames: TypeAlias = Annotated[
    Path | None,
    path_option("--class-names", help="Class names of the model: data.yaml, JSON, or text with one name per line."),
]
DatasetPath: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        callback=expand_user,
        help="Folder in COCO, YOLO, Pascal VOC or LabelMe format, or its JSON or YAML file.",
    ),
]
LogJson: TypeAlias = Annotated[bool, typer.Option("--log-json", help="Print messages as JSON lines.")]


def load_class_names(file: Path | None) -> tuple[str, ...] | None:
    """Return the class names in a file, or None without a file."""
    return None if file is None else read_class_names(file)


def parse_size(text: str | None) -> "Size | None":
    """Parse N or WIDTHxHEIGHT.

    Raises:
        UsageError: the text is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if match is None:
        raise UsageError(f"--image-size takes one number below 100000, or WIDTHxHEIGHT, not {text!r}")
    width, height = match.groups()
    return (int(width), int(height)) if height else int(width)
