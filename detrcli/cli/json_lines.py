"""Keep stderr JSON lines although libraries write text to it."""

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
"""Characters of one event's text; a longer line becomes several events."""
GRACE = 1.0
"""Seconds to wait at the end for the last lines."""


class JsonLines(io.TextIOBase):
    """A text stream that passes events on as they are and makes each other line an event of its own.

    Threads may write at the same time; each has its own line.

    Args:
        file: file descriptor to write to; each event is one write.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._begun = threading.local()  # and no lock, which a forked process might inherit locked

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file descriptor that is written to."""
        return self._file

    def write(self, text: str) -> int:
        """Take text in pieces of any length; a line is written once its end has come."""
        *lines, rest = (getattr(self._begun, "line", "") + text).replace("\r", "\n").split("\n")
        if len(rest) > LONGEST and not rest.startswith(EVENT):
            lines, rest = [*lines, rest], ""
        self._begun.line = rest
        for line in lines:
            for event in _events(line):
                _write_whole(self._file, f"{event}\n".encode("ascii", "backslashreplace"))
        return len(text)

    def finish(self) -> None:
        """Write what came without the end of a line."""
        if getattr(self._begun, "line", ""):
            self.write("\n")


@contextmanager
def json_stderr() -> Iterator[None]:
    """While this lasts, whatever is written to `sys.stderr` or to file descriptor 2 comes out as JSON lines.

    What does not come through `sys.stderr`, as C libraries' and child processes', goes through a pipe to a process that
    turns it into events: a thread could not empty the pipe while a library that fills it holds Python's lock. Where
    processes cannot be forked, it stays as it is.
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
        os.dup2(ours, before.fileno())  # the last end of the pipe but for those of children that go on
        os.close(ours)
        if translator is not None:
            _wait_for(translator)


def _divert(file: int, to: int) -> int:
    """Lead what is written to a file descriptor through a process of its own, whose id is returned."""
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # it ends with the last who can write, and has their last words
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
    """Write as much as can be written; nobody can be told of a stderr that is full or gone."""
    with suppress(OSError):
        while content:
            content = content[os.write(file, content) :]


def _wait_for(child: int) -> None:
    until = time.monotonic() + GRACE
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.002)
