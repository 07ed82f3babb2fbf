"""What `--format` writes: one table that lists the formats, one file each."""

from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from ..detections import Detections
    from ..images.sources import ImageReference

FORMATS = {
    "json": "a JSON file for each picture",
    "jsonl": "detections.jsonl, a line for each picture",
    "csv": "detections.csv, a row for each detection",
}
"""Name, which is that of the module too, and what it writes."""


class Writer(Protocol):
    """Writes one picture's detections."""

    def __call__(self, reference: "ImageReference", model: str, detections: "Detections") -> None:
        """Write them.

        Raises:
            OutputError: the file cannot be written.
        """


def open_writer(name: str, output: Path) -> AbstractContextManager[Writer]:
    """A context that gives a writer of a format into a folder, and completes the files when it ends well."""
    module = import_module(f".{name}", __name__)
    return cast("AbstractContextManager[Writer]", module.writer(output))
