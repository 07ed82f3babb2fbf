"""One file of JSON lines, a line a picture, as they go to stdout."""

import json
from collections.abc import Iterable
from typing import IO

from ..record import Labelled
from ..settings import OutputSettings


def write(file: IO[bytes], pictures: Iterable[Labelled], settings: OutputSettings) -> None:
    """Write all pictures."""
    file.writelines(json.dumps(picture.as_record()).encode() + b"\n" for picture in pictures)


FILES = {"detections.jsonl": write}
