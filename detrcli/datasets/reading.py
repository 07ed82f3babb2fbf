"""Reading annotation files, and recognizing their formats by the first bytes."""

import re
from pathlib import Path

from ..errors import DatasetError
from ..files import open_file, read_file

HEAD_BYTES = 2**16
"""Number of bytes by which a format is recognized."""


def head_matches(file: Path, pattern: bytes) -> bool:
    """Whether a regular expression (with DOTALL) matches in the first bytes of a file; False if it cannot be read."""
    try:
        with open_file(file) as stream:
            return re.search(pattern, stream.read(HEAD_BYTES), re.DOTALL) is not None
    except OSError:
        return False


def read_bytes(file: Path) -> bytes:
    """Read a file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return read_file(file)
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror}") from error


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file in UTF-8.

    Raises:
        DatasetError: the file cannot be read, or is not text.
    """
    try:
        return read_bytes(file).decode("utf-8-sig").splitlines()
    except ValueError as error:
        raise DatasetError(f"{file} is not text in UTF-8") from error
