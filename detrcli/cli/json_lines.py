"""JSON lines on stderr, even where libraries write text to it."""

import codecs
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EVENT = '{"event": '
"""Start of a line that `Console` wrote."""
LONGEST = 4096
"""Most characters of an event's text; a longer line becomes several events."""
GRACE = 1.0
"""Seconds to wait for the last lines at the end."""


class JsonLines(io.TextIOBase):
    """Text stream that writes events unchanged and turns every other line into an event.

    Each thread has a line of its own.

    Args:
        file: file descriptor to write to; each event is one write.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._begun = threading.local()  # not a lock, which a fork could inherit locked

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor that is written to."""
        return self._file

    def write(self, text: str) -> int:
        """Buffer text and write the lines that are complete."""
        *lines, rest = (getattr(self._begun, "line", "") + text).replace("\r", "\n").split("\n")
        if len(rest) > LONGEST and not rest.startswith(EVENT):
            lines, rest = [*lines, rest], ""
        self._begun.line = rest
        for line in lines:
            for event in _events(line):
                _write_whole(self._file, f"{event}\n".encode("ascii", "backslashreplace"))
        return len(text)

    def finish(self) -> None:
        """Write the incomplete last line."""
        if getattr(self._begun, "line", ""):
            self.write("\n")


@contextmanager
def json_stderr() -> Iterator[None]:
    """Turn whatever is written to `sys.stderr` or file descriptor 2 into JSON lines.

    Output that bypasses `sys.stderr`, as that of C libraries and child processes, goes through a pipe to a forked
    process: a thread could not empty the pipe while the library that fills it holds the GIL. Where processes cannot be
    forked, such output stays as it is.
    """
    before = sys.stderr
    before.flush()
    ours = os.dup(before.fileno())
    sys.stderr = stream = JsonLines(ours)
    translator = _divert(2, ours) if hasattr(os, "fork") and before.fileno() == 2 else None
    try:
        yield
    finally:
        stream.finish()
        sys.stderr = before
        os.dup2(ours, before.fileno())  # closes the pipe, unless child processes keep it open
        os.close(ours)
        if translator is not None:
            _wait_for(translator)


def _divert(file: int, to: int) -> int:
    """Redirect a file descriptor to a forked process that translates it, and return the process's id."""
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # it ends when the last writer has closed the pipe
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            os.close(begin)
            _translate(end, to)
        finally:
            os._exit(0)
    os.close(end)
    os.dup2(begin, file)
    os.close(begin)
    return child


def _translate(source: int, to: int) -> None:
    stream, decoder = JsonLines(to), codecs.getincrementaldecoder("utf-8")("backslashreplace")
    while piece := os.read(source, 2**16):
        stream.write(decoder.decode(piece))
    stream.finish()


def _events(line: str) -> Iterator[str]:
    if line.startswith(EVENT):
        yield line
        return
    for start in range(0, len(line), LONGEST):
        yield json.dumps({"event": "message", "text": line[start : start + LONGEST]})


def _write_whole(file: int, content: bytes) -> None:
    """Write as much as possible; errors of stderr cannot be reported anywhere."""
    with suppress(OSError):
        while content:
            content = content[os.write(file, content) :]


def _wait_for(child: int) -> None:
    until = time.monotonic() + GRACE
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.002)
