"""What was written into an output folder, so that a run overwrites nothing else."""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..files import STATE_FOLDER

KEY = np.dtype("<u8")
LIST = "written"
"""Name of the file that remembers it: 8 bytes for each file, which stand for its place and its contents."""


class OverwriteError(OutputError):
    """A file would be overwritten that is not known to be ours."""


class Written:
    """The files that this and earlier runs wrote into an output folder.

    A file is remembered before it takes its name, so that it is known whatever ends the run; only a power cut may take
    back the last second. Methods may be called from any thread.

    Args:
        output: the output folder.
        folder: where this run keeps its own list, below the output folder.
        overwrite: whether files that are not known may be overwritten.
    """

    def __init__(self, output: Path, folder: Path, *, overwrite: bool = False) -> None:
        self._output, self._path, self._overwrite = output, folder / LIST, overwrite
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self._known: NDArray[np.uint64] | None = None

    def is_foreign(self, path: Path) -> bool:
        """Whether there is a file, or a link, that no run wrote, or that has changed since."""
        return self._is_foreign(path, None)

    def admit(self, new: Path, path: Path) -> None:
        """Remember a file that is about to take its name.

        Args:
            new: the file.
            path: the name it is to take.

        Raises:
            OverwriteError: there is another file that may not be overwritten.
            OSError: it cannot be remembered.
        """
        key = self._key(path, new)
        self._check(path, key)
        with self._lock:
            if self._known is not None and _holds(self._known, key):
                return
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
                self._file.write(bytes(-self._file.tell() % KEY.itemsize))  # what a power cut left of the last one
            self._file.write(key.tobytes())

    def check(self, path: Path) -> None:
        """See to it that a file may be overwritten, or taken away.

        Raises:
            OverwriteError: it may not.
        """
        self._check(path, None)

    def sync(self) -> None:
        """See to it that what is remembered outlasts a power cut."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Remember no more."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _check(self, path: Path, key: np.uint64 | None) -> None:
        if not self._overwrite and self._is_foreign(path, key):
            raise OverwriteError(f"{path} was not written by detr, or has changed since; --overwrite replaces it")

    def _is_foreign(self, path: Path, same: np.uint64 | None) -> bool:
        """As `is_foreign`, but a file of this key is not."""
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):  # there is none, or writing it tells why
            return False
        if stat.S_ISDIR(mode):  # which nothing overwrites
            return False
        if not stat.S_ISREG(mode):
            return True
        if same is None and not len(self._before()) and not any(map(len, self._lists())):
            return True  # without reading what may be large
        try:
            key = self._key(path, path)
        except OSError:
            return True
        # the lists may have grown since, here or elsewhere
        return not (key == same or _holds(self._before(), key) or any((one == key).any() for one in self._lists()))

    def _key(self, path: Path, content: Path) -> np.uint64:
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").digest()
        place = os.fsencode(path.relative_to(self._output).as_posix())
        key = hashlib.blake2b(place + b"\0" + digest, digest_size=KEY.itemsize).digest()
        return np.uint64(int.from_bytes(key))

    def _before(self) -> NDArray[np.uint64]:
        """What was remembered when it was first asked for, sorted."""
        with self._lock:
            if self._known is None:
                self._known = np.unique(np.concatenate([np.zeros(0, KEY), *self._lists()]))
            return self._known

    def _lists(self) -> list[NDArray[np.uint64]]:
        folder = self._output / STATE_FOLDER
        found = []
        for path in (folder / LIST, *folder.glob(f"*/{LIST}")):
            with suppress(OSError):
                content = path.read_bytes()
                found.append(np.frombuffer(content, KEY, len(content) // KEY.itemsize))
        return found


def _holds(known: NDArray[np.uint64], key: np.uint64) -> bool:
    """Whether one of many sorted numbers is this one."""
    place = int(np.searchsorted(known, key))
    return place < len(known) and bool(known[place] == key)
