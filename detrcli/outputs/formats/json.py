"""One JSON file an image, beside where its annotated image goes: `a.jpg` → `a.jpg.json`."""

import json
from pathlib import PurePosixPath

from ..record import ImageResult
from ..settings import OutputSettings


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return relative.with_name(f"{relative.name}.json")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """The record that goes to stdout, indented."""
    return json.dumps(result.as_record(), indent=2).encode() + b"\n"
