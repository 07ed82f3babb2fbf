"""How files of annotations begin, by which their formats are told apart without reading them whole."""

import re
from pathlib import Path

from ..files import open_file

HEAD_BYTES = 2**16
"""Bytes that are looked at."""


def head_matches(file: Path, pattern: bytes) -> bool:
    """Whether a pattern is found in the beginning of a file; False for what cannot be read.

    Args:
        file: a file.
        pattern: a regular expression, whose dot matches line ends, too.
    """
    try:
        with open_file(file) as opened:
            return re.search(pattern, opened.read(HEAD_BYTES), re.DOTALL) is not None
    except OSError:
        return False
