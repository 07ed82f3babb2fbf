"""One JSON file a picture, beside where its drawing goes: `a.jpg` → `a.jpg.json`."""

import json
from pathlib import PurePosixPath

from ..record import Labelled
from ..settings import OutputSettings


def place(relative: PurePosixPath) -> PurePosixPath:
    """Where a picture's file belongs."""
    return relative.with_name(f"{relative.name}.json")


def content(picture: Labelled, settings: OutputSettings) -> bytes:
    """The record that goes to stdout, indented."""
    return json.dumps(picture.as_record(), indent=2).encode() + b"\n"
