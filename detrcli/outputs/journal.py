"""What a run over many images has done, line by line in a file that survives whatever ends the run.

The first line says what run it is, then comes a line for each image, in order, and a last line when the run is whole.
Files for all images at once are written from it.
"""

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, UsageError
from ..files import as_output_error, lock, sync_folder
from ..images.sources import ImageReference
from .record import ImageResult, of_record

Setting = Mapping[str, Any]

SYNC_AFTER = 1.0
"""Seconds of work that a power cut may cost."""


@dataclass(frozen=True)
class Failure:
    """An image of which nothing came.

    Attributes:
        path: as the user would name it.
        kind: what went wrong, in a word or two.
        reason: what the user was told.
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """What became of one image.

    Attributes:
        index: its place among all images of all shards, from 0.
        result: what was found, or what went wrong.
    """

    index: int
    result: ImageResult | Failure


@dataclass(frozen=True)
class Record:
    """A journal to read, as far as it is whole.

    Attributes:
        path: of the file.
        setting: what decides the run's outputs.
        done: how many images it knows.
        finished: whether the run came to its end.
        whole: how many of the file's bytes are whole lines.
    """

    path: Path
    setting: Setting
    done: int
    finished: bool
    whole: int

    def entries(self) -> Iterator[Entry]:
        """What became of each image so far."""
        with self.path.open("rb") as file:
            for line in _up_to(file, self.whole):
                if (entry := _entry(line)) is not None:
                    yield entry

    def remaining(self, references: Iterable[tuple[int, ImageReference]]) -> Iterator[tuple[int, ImageReference]]:
        """Those of a run's images that are not in here.

        As long as the images come as they came before, nothing is held in memory, else 16 bytes for each.
        """
        done = (entry.result.path for entry in self.entries())
        coming = iter(references)
        for index, reference in coming:
            path = next(done, None)
            if path is None:
                yield index, reference
                yield from coming
            elif path != reference.path:
                left = Names(chain([path], done))
                yield from (one for one in chain([(index, reference)], coming) if not left.take(one[1].path))


class Names:
    """How often each of many names occurs, in 16 bytes for each.

    Args:
        names: all of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known, self._left = np.unique(np.fromiter(map(_digest, names), np.uint64), return_counts=True)

    def take(self, name: str) -> bool:
        """Whether one of this name was left; from now on it is not."""
        place = self._place(name)
        if place is None or not self._left[place]:
            return False
        self._left[place] -= 1
        return True

    def drop(self, name: str) -> None:
        """Let none of this name be left."""
        place = self._place(name)
        if place is not None:
            self._left[place] = 0

    @property
    def left(self) -> int:
        """How many different names are left."""
        return int(np.count_nonzero(self._left))

    def __contains__(self, name: str) -> bool:
        return self._place(name) is not None

    def _place(self, name: str) -> int | None:
        digest = np.uint64(_digest(name))
        place = int(np.searchsorted(self._known, digest))
        return place if place < len(self._known) and self._known[place] == digest else None


def read_journal(path: Path) -> Record | None:
    """The journal in a file, or None if there is none, not even a first line.

    It is whole up to the first line that no run writes, or that was there before.

    Raises:
        UsageError: it cannot be read.
    """
    setting = setting_of(path)
    if setting is None:
        return None
    lengths, digests = array("Q"), array("q")
    with _reading(path), path.open("rb") as file:
        whole = len(file.readline())
        for line in file:
            if line != FINISHED and _entry(line) is None:
                break
            lengths.append(len(line))
            digests.append(hash(line))
    finishing = np.frombuffer(digests, np.int64) == hash(FINISHED)
    count = _first_repeated(np.frombuffer(digests, np.int64), finishing)
    whole += int(np.frombuffer(lengths, np.uint64)[:count].sum())
    return Record(path, setting, int((~finishing[:count]).sum()), bool(finishing[:count][-1:].any()), whole)


def setting_of(path: Path) -> Setting | None:
    """What the first line of a journal says, or None if there is none.

    Raises:
        UsageError: it cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        line = file.readline()
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            setting = json.loads(line)["setting"]
            if isinstance(setting, dict) and line.endswith(b"\n"):
                return setting
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name another --output") from error


def ensure_not_locked(path: Path) -> None:
    """Refuse a journal that another process is writing.

    Raises:
        UsageError: there is one.
    """
    with as_output_error(path), path.open("ab") as file:
        lock(file, path)


class Journal:
    """A journal to write.

    Args:
        path: of the file.
        setting: what decides the run's outputs.
        before: the journal of the run to go on with, or None to begin anew.
        folders: those in which its own folder, and what holds it, were given their names.
        before_sync: is called before what was written is made to last.

    Raises:
        OutputError: it cannot be written.
        UsageError: another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        setting: Setting,
        before: Record | None = None,
        folders: Iterable[Path] = (),
        before_sync: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        with as_output_error(path):
            self._file: IO[bytes] = path.open("ab")
            try:
                lock(self._file, path)
                self._file.truncate(before.whole if before else 0)
                if before is None:
                    self._write(json.dumps({"setting": setting}).encode() + b"\n")
            except BaseException:
                self._file.close()
                raise
        self._setting, self._done = setting, before.done if before else 0
        self._synced = time.monotonic()
        self._folders, self._before_sync = {path.parent, *folders}, before_sync

    def add(self, entry: Entry, folders: Iterable[Path] = ()) -> None:
        """Write what became of an image, whose own outputs are on the disk.

        Args:
            entry: what to write.
            folders: where those outputs were given their names, which are made to last before the line is.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with as_output_error(self.path):
            self._write(_line(entry))
            self._done += 1
            if time.monotonic() - self._synced > SYNC_AFTER:
                self._sync()

    def so_far(self) -> Record:
        """What was written.

        Raises:
            OutputError: the file is no longer where it was.
        """
        self._check_place()
        return Record(self.path, self._setting, self._done, False, os.fstat(self._file.fileno()).st_size)

    def finish(self, folders: Iterable[Path] = ()) -> None:
        """Say that the run came to its end.

        Args:
            folders: where the files for all images were given their names.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with as_output_error(self.path):
            self._write(FINISHED)

    def close(self) -> None:
        """Write no more.

        Raises:
            OutputError: it cannot be written.
        """
        with as_output_error(self.path), self._file:
            self._sync()

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def _check_place(self) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                return
        raise OutputError(f"{self.path} was removed or replaced while it was written")

    def _sync(self) -> None:
        self._check_place()
        self._before_sync()
        for folder in self._folders:
            sync_folder(folder)
        self._folders.clear()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


FINISHED = b'{"finished": true}\n'
FAILURE_KEYS = ("index", "path", "kind", "reason")
LABELLED_KEYS = ("index", "relative", "path", "size", "model", "detections")
KEYS_WITH_ID = ("index", "relative", "image_id", *LABELLED_KEYS[2:])
"""Of a line's object, in order."""


def _line(entry: Entry) -> bytes:
    result = entry.result
    if isinstance(result, Failure):
        return json.dumps({"index": entry.index, **vars(result)}).encode() + b"\n"
    identity = {} if result.image_id is None else {"image_id": result.image_id}
    place = {"index": entry.index, "relative": result.relative, **identity}
    return json.dumps({**place, **result.as_record()}).encode() + b"\n"


def _entry(line: bytes) -> Entry | None:
    """What `_line` made a line of, or None if it did not."""
    if not (line.startswith(b"{") and line.endswith(b"}\n")):
        return None
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(line)
        keys = tuple(record)
        if keys == FAILURE_KEYS:
            failure = Failure(record["path"], record["kind"], record["reason"])
            if _are(int, record["index"]) and _are(str, *vars(failure).values()):
                return Entry(record["index"], failure)
        elif keys in (LABELLED_KEYS, KEYS_WITH_ID):
            result = of_record(record, record["relative"], record.get("image_id"))
            found = result.found
            if (
                _are(int, record["index"], result.width, result.height, *(one.label_id for one in found))
                and _are((int, str, NoneType), result.image_id)
                and _are(str, result.path, result.relative, result.model, *(one.label for one in found))
                and _are((int, float), *(value for one in found for value in (one.score, *one.box)))
                and all(len(one.box) == 4 for one in found)
            ):
                return Entry(record["index"], result)
    return None


def _are(kind: type | tuple[type, ...], *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _first_repeated(digests: NDArray[np.int64], excepted: NDArray[np.bool_]) -> int:
    """The place of the first digest that was there before, or how many there are; some may occur often."""
    order = np.argsort(digests, kind="stable")
    repeated = order[1:][digests[order[1:]] == digests[order[:-1]]]
    return int(min(repeated[~excepted[repeated]], default=len(digests)))


def _up_to(file: IO[bytes], end: int) -> Iterator[bytes]:
    read = 0
    for line in file:
        read += len(line)
        if read > end:
            return
        yield line


def _digest(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest())
