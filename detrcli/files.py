"""Files that appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing bytes; it takes its name when the block ends, and vanishes if the block fails.

    Missing folders are made. The bytes go to a hidden file beside `path`, which is renamed.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".detr-", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        if error.errno in (None, errno.EPIPE):  # not this file's, but of what the block does beside writing it
            raise
        advice = "free some space, then run it again" if error.errno == errno.ENOSPC else "choose another place"
        raise OutputError(f"cannot write {path}: {os.strerror(error.errno)}; {advice}") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
