"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import LockedError, OutputError

LONGEST_NAME = 255
"""Bytes that a file's name may have."""
STATE_FOLDER = ".detr"
"""Where below the output folder a run keeps its journal, and files that are not whole yet; a shard in one below it."""
PART_SUFFIX = ".part"
"""What the name of a file ends with that is not whole yet."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says of a disk, or of a share of it, that is full."""

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What a system says of a folder, as of some networks, whose names it cannot make sure of."""
OPEN_ALREADY = re.compile(r"/dev/stdin|(/dev|/proc/(self|\d+))/fd/\d+")
"""Names of what is open already, such as the pipe of a shell's `<(command)`."""


class NotAFileError(OSError):
    """What was named is a device, a socket or a pipe, which might block forever."""


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file, or a pipe that is open already, for reading bytes; opening never blocks.

    Raises:
        NotAFileError: it is anything else.
        OSError: it cannot be opened.
    """
    _check_that_it_is_a_file(path, os.stat(path))  # before it is opened, which has a device do things
    file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115 (the caller closes it)
    try:
        _check_that_it_is_a_file(path, os.fstat(file.fileno()))
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(file.fileno(), True)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The contents of a file that `open_file` opens.

    Raises:
        OSError: it cannot be opened or read.
    """
    with open_file(path) as file:
        return file.read()


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _check_that_it_is_a_file(path: str | os.PathLike[str], status: os.stat_result) -> None:
    kind = status.st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # opening a folder says by itself that it is one
        return
    if stat.S_ISFIFO(kind):
        if OPEN_ALREADY.fullmatch(os.fspath(path)):
            return
        raise NotAFileError(errno.EINVAL, "a pipe, not a file", os.fspath(path))
    raise NotAFileError(errno.EINVAL, "a device or socket, not a file", os.fspath(path))


@contextmanager
def atomic_file(
    path: Path, *, staging: Path | None = None, before_rename: Callable[[Path, Path], None] | None = None
) -> Iterator[IO[bytes]]:
    """Open a new file for writing bytes; it takes its name when the block ends, and vanishes if the block fails.

    Missing folders are made. The bytes go to a hidden file, which is renamed once the disk has it all.

    Args:
        path: of the file.
        staging: an existing folder for the hidden file, which a kill leaves behind; None for that of the file, which
            also serves where the other is on another disk.
        before_rename: is called with the hidden file and the path before the file takes its name; it may refuse.

    Raises:
        OutputError: the file cannot be written.
    """
    with as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if staging is None or staging.stat().st_dev != path.parent.stat().st_dev:
            staging = path.parent
        hidden = staging / f".detr-{secrets.token_hex(8)}{PART_SUFFIX}"
        file = hidden.open("xb")
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if before_rename is not None:
                before_rename(hidden, path)
            hidden.replace(path)
        except BaseException:
            with suppress(OSError):
                hidden.unlink()
            raise


def sync_folder(path: Path) -> None:
    """See to it that the names in a folder outlast a power cut, as far as its disk can.

    Raises:
        OSError: the disk is broken or full.
    """
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # no system opens all of them, and Windows opens none
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(folder)


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Around all that is done to write a file.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        # not this file's, but of what the block does beside writing it
        if error.errno in (None, errno.EPIPE):
            raise
        advice = "free some space, then run it again" if error.errno in DISK_FULL else "choose another place"
        raise OutputError(f"cannot write {path}: {os.strerror(error.errno)}; {advice}") from error


def digest_of(*paths: Path) -> str:
    """A digest of the contents of a file, or of several one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def shorten_name(path: Path) -> Path:
    """A path whose last name is not too long for a file: what is too much gives way to a digest of the name."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path
    stem, suffix = os.path.splitext(name)
    digest = b"~" + hashlib.sha256(name).hexdigest()[:16].encode()
    kept = stem[: LONGEST_NAME - len(digest) - len(suffix)].decode("utf-8", "ignore").encode()
    return path.with_name(os.fsdecode(kept + digest + suffix))


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """Keep a folder, which is made if need be, for this process as long as this lasts.

    Raises:
        UsageError: another process has it for itself.
        OutputError: it cannot be made.
    """
    with as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with suppress(OSError):  # as in `sync_folder`
            place = os.open(folder, os.O_RDONLY)
            held.callback(os.close, place)
            lock(place, folder)
        yield


def lock(file: IO[bytes] | int, path: Path) -> None:
    """Keep an open file, or folder, for this process until it is closed, where the system knows how.

    Raises:
        LockedError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"another run is writing {path}") from error
    except OSError:  # a disk, as of some networks, that knows no locks
        return
