"""Output formats: a table, and what the module of each format provides.

To add one, write a module here that is named like it (`label-studio` is in label_studio.py) and add a row to `FORMATS`.
The module follows `ImageFormat` to write a file for each image, `RunFormat` to write files for a whole run, or both.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from ..record import ImageResult, OutputSettings


@dataclass(frozen=True)
class Format:
    """Row of the table of formats.

    Attributes:
        per_image: whether its module is an `ImageFormat`.
        per_run: whether its module is a `RunFormat`.
        by_stem: whether an image's file is named by the image's stem, so that `a.jpg` and `a.png` would share one.
    """

    per_image: bool = False
    per_run: bool = False
    by_stem: bool = False


FORMATS = {
    "json": Format(per_image=True),
    "jsonl": Format(per_run=True),
    "csv": Format(per_run=True),
    "coco": Format(per_run=True),
    "coco-results": Format(per_run=True),
    "yolo": Format(per_image=True, per_run=True, by_stem=True),
    "voc": Format(per_image=True, by_stem=True),
    "labelme": Format(per_image=True, by_stem=True),
    "label-studio": Format(per_run=True),
    "cvat": Format(per_run=True),
}
PER_IMAGE = frozenset(name for name, row in FORMATS.items() if row.per_image)
PER_RUN = frozenset(name for name, row in FORMATS.items() if row.per_run)


class ImageFormat(Protocol):
    """Writes one file per image."""

    def path_for(self, relative: PurePosixPath) -> PurePosixPath:
        """Path of an image's file below the output folder, from the path of the image's outputs there."""

    def render(self, result: "ImageResult", settings: "OutputSettings") -> bytes:
        """Contents of the file."""


Writer = Callable[[IO[bytes], "Iterable[ImageResult]", "OutputSettings"], None]
"""Writes the results of a run to an open file. They may be iterated repeatedly, and are never in memory all at once."""


class RunFormat(Protocol):
    """Writes one or more files per run."""

    FILES: Mapping[str, Writer]
    """Writer of each file, by its name."""


def image_format(name: str) -> ImageFormat:
    """Load the module of a format in `PER_IMAGE`."""
    return cast("ImageFormat", _module(name))


def run_format(name: str) -> RunFormat:
    """Load the module of a format in `PER_RUN`."""
    return cast("RunFormat", _module(name))


def _module(name: str) -> object:
    return import_module(f".{name.replace('-', '_')}", __name__)
