"""One JSON file per image, beside the annotated image: `a.jpg` → `a.jpg.json`."""

import json
from pathlib import PurePosixPath

from ..record import ImageResult, OutputSettings


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return relative.with_name(f"{relative.name}.json")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """Render the record of an image, indented."""
    return json.dumps(result.as_record(), indent=2).encode() + b"\n"
