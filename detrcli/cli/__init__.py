"""Command line: parses arguments, calls the library, and reports."""

import errno
import io
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, NoReturn

from ..errors import DetrError
from ..files import DISK_FULL
from ..host import limit_openmp_spinning
from .console import Console, discard_stdout
from .exit_codes import ERROR, INTERRUPTED, SOME_FAILED
from .hints import with_hint
from .json_lines import json_stderr
from .packages import complaint_about_package

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def main() -> None:
    """Run the command line and exit with one of `EXIT_CODES`."""
    _prepare_streams()
    limit_openmp_spinning()
    as_json = "--log-json" in sys.argv
    with json_stderr() if as_json else nullcontext():
        _run(Console(quiet=False, verbose=False, as_json=as_json))


def _run(console: Console) -> NoReturn:
    try:
        try:
            from .app import run  # here, so that Ctrl-C during imports is handled, too

            run(console)
        except SystemExit:
            sys.stdout.flush()
            raise
    except DetrError as error:
        console.error(with_hint(error))
        sys.exit(ERROR)
    except (ImportError, MemoryError, OSError) as error:
        complaint = complaint_about_package(error)
        if complaint is not None:
            console.error(complaint)
            sys.exit(ERROR)
        # other files raise OutputError, so only stdout is left
        streams = (errno.EPIPE, errno.EIO, errno.EBADF, *DISK_FULL)
        if not isinstance(error, OSError) or error.errno not in streams or error.filename is not None:
            raise
        discard_stdout()
        if error.errno == errno.EPIPE:
            sys.exit(SOME_FAILED)
        console.error(f"cannot write stdout: {error.strerror}")
        sys.exit(ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


class _LenientFile(io.FileIO):
    """File that ignores errors of writing, such as a full disk or a closed pipe."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _prepare_streams() -> None:
    """Replace closed standard streams, and a stderr that cannot be written.

    Messages that cannot be written are dropped; data that cannot be written to stdout is an error.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115 (writing fails)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    elif (stderr := sys.__stderr__) is not None and sys.stderr is stderr:
        raw = io.BufferedWriter(_LenientFile(2, "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, stderr.encoding, errors="backslashreplace", line_buffering=True)
