"""Recognizing formats of annotation files by their first bytes."""

import re
from pathlib import Path

from ..files import open_file

HEAD_BYTES = 2**16
"""Number of bytes to read."""


def head_matches(file: Path, pattern: bytes) -> bool:
    """Whether a regular expression (with DOTALL) matches in the first bytes of a file; False if it cannot be read."""
    try:
        with open_file(file) as stream:
            return re.search(pattern, stream.read(HEAD_BYTES), re.DOTALL) is not None
    except OSError:
        return False
