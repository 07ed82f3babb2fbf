"""List of the files that runs wrote into an output folder, so that later runs overwrite nothing else."""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import OverwriteError
from ..files import STATE_FOLDER

KEY = np.dtype("<u8")
LIST = "written"
"""Name of the list: 8 bytes per file, a digest of its path and contents."""


class Written:
    """Files that this and earlier runs wrote into an output folder.

    A file is listed before it gets its name, so that it is known whatever ends the run; only a power cut may lose the
    last second. Methods may be called from any thread.

    Args:
        output: output folder.
        folder: folder of this run's own list, below the output folder.
        overwrite: whether files that are not listed may be overwritten.
    """

    def __init__(self, output: Path, folder: Path, *, overwrite: bool = False) -> None:
        self._output, self._path, self._overwrite = output, folder / LIST, overwrite
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self._known: NDArray[np.uint64] | None = None

    def is_foreign(self, path: Path) -> bool:
        """Whether a file or link exists that no run wrote, or that was changed since."""
        return self._is_foreign(path, None)

    def admit(self, new: Path, path: Path) -> None:
        """List a file that is about to be renamed to its final path.

        Args:
            new: current path of the file.
            path: its final path.

        Raises:
            OverwriteError: another file is there that may not be overwritten.
            OSError: the list cannot be written.
        """
        key = self._key(path, new)
        self._check(path, key)
        with self._lock:
            if self._known is not None and _holds(self._known, key):
                return
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
                self._file.write(bytes(-self._file.tell() % KEY.itemsize))  # a part of a key that a power cut left
            self._file.write(key.tobytes())

    def check(self, path: Path) -> None:
        """Refuse to overwrite or remove a file that is not listed.

        Raises:
            OverwriteError: it is not listed.
        """
        self._check(path, None)

    def sync(self) -> None:
        """Sync the list to the disk."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the list."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _check(self, path: Path, key: np.uint64 | None) -> None:
        if not self._overwrite and self._is_foreign(path, key):
            raise OverwriteError(f"{path} was not written by detr, or has changed since")

    def _is_foreign(self, path: Path, same: np.uint64 | None) -> bool:
        """As `is_foreign`, except for a file with this key."""
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):  # it is missing, or writing it will fail with a reason
            return False
        if stat.S_ISDIR(mode):  # never overwritten
            return False
        if not stat.S_ISREG(mode):
            return True
        if same is None and not len(self._before()) and not any(map(len, self._lists())):
            return True  # nothing is listed: no need to read a large file
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
        """Keys that were listed when this was first called, sorted."""
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
    """Whether a sorted array holds a key."""
    place = int(np.searchsorted(known, key))
    return place < len(known) and bool(known[place] == key)
