"""JSON lines, one record per image."""

import json
from collections.abc import Iterable
from typing import IO

from ..record import ImageResult, OutputSettings


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the records of all images."""
    file.writelines(json.dumps(result.as_record()).encode() + b"\n" for result in results)


FILES = {"detections.jsonl": write}
