"""One file of JSON lines, a line a picture, as they go to stdout."""

import json
from collections.abc import Iterable
from typing import IO

from ..labelled import Labelled

NAME = "detections.jsonl"


def write(file: IO[bytes], pictures: Iterable[Labelled], class_names: tuple[str, ...]) -> None:
    """Write all pictures."""
    file.writelines(json.dumps(picture.as_record()).encode() + b"\n" for picture in pictures)
