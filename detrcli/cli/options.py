"""Options that several commands share."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from ..checkpoints.class_names import read_class_names
from ..errors import UsageError

if TYPE_CHECKING:
    from ..checkpoints.families import Size

Model: TypeAlias = Annotated[
    str,
    typer.Option("--model", "-m", help="A known name (see `detr models`), org/name on the Hub, a folder or a file."),
]
Revision: TypeAlias = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Offline: TypeAlias = Annotated[bool, typer.Option("--offline", help="Use only models in the cache.")]
_DEVICES = "auto|cpu|cuda|cuda:N|mps"
Device: TypeAlias = Annotated[str, typer.Option(metavar=_DEVICES, help="Where to run; or several, as cuda:0,cuda:1.")]
OneDevice: TypeAlias = Annotated[
    str, typer.Option(metavar=_DEVICES, callback=lambda name: _one(name), help="Where to run.")
]
ImageSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-size", metavar="N|WIDTHxHEIGHT", help="What images are resized to.  [default: as the model says]"
    ),
]
Precision: TypeAlias = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option(help="How to compute; auto is what the device is fast in."),
]
BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Images of one shape to run at once.  [default: 8 on CUDA, else 1]"),
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Threads that read, draw and write.  [default: as many as there are cores]")
]
Overwrite: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files that no run wrote, that were changed since, or that are of other images.",
    ),
]
Strict: TypeAlias = Annotated[
    bool,
    typer.Option("--strict", help="Refuse images that EXIF data rotate but that were annotated unrotated."),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
ClassNames: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        callback=lambda file: at_home(file),
        help="Names of the model's labels: data.yaml, JSON, or a name a line.",
    ),
]
DatasetPath: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        callback=lambda path: at_home(path),
        help="A folder in COCO, YOLO, Pascal VOC or LabelMe format, or its JSON or YAML file.",
    ),
]
LogJson: TypeAlias = Annotated[bool, typer.Option("--log-json", help="Say everything on stderr as JSON lines.")]


def names_in(file: Path | None) -> tuple[str, ...] | None:
    """The class names in a file, if one is given."""
    return None if file is None else read_class_names(file)


def _one(device: str) -> str:
    if "," in device:
        raise typer.BadParameter(f"this runs on one device, not on {device}.")
    return device


def at_home(value: Any) -> Any:
    """What an option or argument names, `~` expanded, which shells leave as it is after `--option=` and in quotes."""
    if isinstance(value, list):
        return [at_home(one) for one in value]
    return value if value is None else type(value)(os.path.expanduser(value))


def each_of(known: Collection[str]) -> Callable[[list[str] | None], list[str]]:
    """Check a repeatable option: each time it is one of the known names."""

    def checked(names: list[str] | None) -> list[str]:
        for name in names or ():
            if name not in known:
                raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}.")
        return names or []

    return checked


def parse_size(text: str | None) -> "Size | None":
    """The size that a user wrote.

    Raises:
        UsageError: it is neither a number nor WIDTHxHEIGHT.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if match is None:
        raise UsageError(f"--image-size takes one number below 100000, or WIDTHxHEIGHT, not {text!r}")
    width, height = match.groups()
    return (int(width), int(height)) if height else int(width)
