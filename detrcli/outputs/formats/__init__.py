"""What `--format` writes: a table of formats, and what each of their modules has.

A format has a file for each image, or one for all images, or both; its module is called as it is.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from ..record import ImageResult
    from ..settings import OutputSettings

FORMATS = {
    "json": "a.jpg.json, a file for each image",
    "jsonl": "detections.jsonl, a line for each image",
    "csv": "detections.csv, a row for each detection",
    "coco": "coco.json, a COCO dataset",
    "coco-results": "coco-results.json, COCO's results, with the image ids of coco.json",
    "yolo": "labels/a.txt for each image, and data.yaml",
    "voc": "a.xml, Pascal VOC's, for each image",
    "labelme": "a.json, LabelMe's, for each image",
    "label-studio": "label-studio.json, tasks with predictions, and label-studio.xml, their labeling config",
    "cvat": "cvat.xml, CVAT for images 1.1",
}
"""Name and what it writes."""
FOR_EACH = frozenset(("json", "yolo", "voc", "labelme"))
"""Those whose module is a `ImageFormat`."""
FOR_ALL = frozenset(("jsonl", "csv", "coco", "coco-results", "yolo", "label-studio", "cvat"))
"""Those whose module is a `RunFormat`."""
BY_STEM = frozenset(("yolo", "voc", "labelme"))
"""Those whose readers find an image's file by its name without ending, so that `a.jpg` and `a.png` would share one."""


class ImageFormat(Protocol):
    """Writes a file for each image."""

    def place(self, relative: PurePosixPath) -> PurePosixPath:
        """Where an image's file belongs below the output folder."""

    def content(self, result: "ImageResult", settings: "OutputSettings") -> bytes:
        """What it holds."""


Writer = Callable[[IO[bytes], "Iterable[ImageResult]", "OutputSettings"], None]
"""Writes all images, which can be iterated as often as it takes, and are never held in memory all at once."""


class RunFormat(Protocol):
    """Writes one or more files for all images together."""

    FILES: Mapping[str, Writer]
    """Name of each file, and what writes it."""


def image_format(name: str) -> ImageFormat:
    """The module of one of `FOR_EACH`."""
    return cast("ImageFormat", _module(name))


def run_format(name: str) -> RunFormat:
    """The module of one of `FOR_ALL`."""
    return cast("RunFormat", _module(name))


def _module(name: str) -> object:
    return import_module(f".{name.replace('-', '_')}", __name__)
