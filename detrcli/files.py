"""Atomic writes, locks, and reads that cannot block."""

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
"""Longest file name, in bytes."""
STATE_FOLDER = ".detr"
"""Folder below the output folder for a run's journal and unfinished files; each shard has its own folder below it."""
PART_SUFFIX = ".part"
"""Suffix of unfinished files."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk or an exceeded quota."""
SYNC_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Error numbers of a folder that cannot be synced, as on some network file systems."""
OPEN_PIPE = re.compile(r"/dev/stdin|(/dev|/proc/(self|\d+))/fd/\d+")
"""Paths of open file descriptors, such as the pipe of a shell's `<(command)`."""


class NotAFileError(OSError):
    """The path is a device, a socket or a named pipe, which might block forever."""


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file, or a pipe that is already open, for reading bytes, without blocking.

    Raises:
        NotAFileError: the path is anything else.
        OSError: the file cannot be opened.
    """
    _check_is_file(path, os.stat(path))  # before opening it, which has side effects on devices
    file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115 (the caller closes it)
    try:
        _check_is_file(path, os.fstat(file.fileno()))
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(file.fileno(), True)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a file that `open_file` can open.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with open_file(path) as file:
        return file.read()


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _check_is_file(path: str | os.PathLike[str], status: os.stat_result) -> None:
    kind = status.st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # opening a folder fails with an error of its own
        return
    if stat.S_ISFIFO(kind):
        if OPEN_PIPE.fullmatch(os.fspath(path)):
            return
        raise NotAFileError(errno.EINVAL, "a pipe, not a file", os.fspath(path))
    raise NotAFileError(errno.EINVAL, "a device or socket, not a file", os.fspath(path))


@contextmanager
def atomic_file(
    path: Path, *, staging: Path | None = None, before_rename: Callable[[Path, Path], None] | None = None
) -> Iterator[IO[bytes]]:
    """Write a file that appears only when the block ends, and not at all if the block fails.

    Missing folders are created. The bytes go to a hidden file, which is synced to the disk and then renamed.

    Args:
        path: path of the file.
        staging: existing folder for the hidden file, which a killed process leaves behind. The file's own folder is
            used if this is None or on another disk.
        before_rename: called with the paths of the hidden file and of the file; raises an error to reject the file.

    Raises:
        OutputError: the file cannot be written.
    """
    with as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # raises for an impossible name, before the work that the block does
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
    """Make the file names in a folder survive a power cut, where the file system supports it.

    Raises:
        OSError: the disk is broken or full.
    """
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # no permission; Windows cannot open folders at all
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in SYNC_UNSUPPORTED:
            raise
    finally:
        os.close(folder)


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing a file into an `OutputError`.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        # raised by something else in the block than writing this file
        if error.errno in (None, errno.EPIPE):
            raise
        advice = "free some space, then run it again" if error.errno in DISK_FULL else "choose another place"
        raise OutputError(f"cannot write {path}: {os.strerror(error.errno)}; {advice}") from error


def digest_of(*paths: Path) -> str:
    """Digest of the concatenated contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def digest_of_name(name: str) -> int:
    """64-bit digest of a file name or path, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def shorten_name(path: Path) -> Path:
    """Replace the end of a stem with a digest of the name if the name is too long for a file."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path
    stem, suffix = os.path.splitext(name)
    digest = b"~" + hashlib.sha256(name).hexdigest()[:16].encode()
    kept = stem[: LONGEST_NAME - len(digest) - len(suffix)].decode("utf-8", "ignore").encode()
    return path.with_name(os.fsdecode(kept + digest + suffix))


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while the block runs; create it if necessary.

    Raises:
        LockedError: another process has locked it.
        OutputError: it cannot be created.
    """
    with as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(OSError):  # as in `sync_folder`
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            lock(descriptor, folder)
        yield


def lock(file: IO[bytes] | int, path: Path) -> None:
    """Lock an open file or folder for this process until it is closed, where the system supports it.

    Raises:
        LockedError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"another run is writing {path}") from error
    except OSError:  # some network file systems have no locks
        return
