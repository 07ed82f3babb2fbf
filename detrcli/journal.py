"""What a run over many pictures has done, line by line in a file that survives whatever ends the run.

The first line says what run it is, then comes a line for each picture, in order, and a last line when the run is whole.
Files for all pictures at once are written from it.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from .errors import UsageError
from .files import lock, sync_folder, writing
from .images.sources import ImageReference
from .labelled import Labelled, of_record

Setting = Mapping[str, Any]

FOLDER = ".detr"
"""Where below the output folder a run keeps its journal, and files that are not whole yet; a shard in one below it."""
SYNC_AFTER = 1.0
"""Seconds of work that a power cut may cost."""


@dataclass(frozen=True)
class Failure:
    """A picture of which nothing came.

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
    """What became of one picture.

    Attributes:
        index: its place among all pictures of all shards, from 0.
        result: what was found, or what went wrong.
    """

    index: int
    result: Labelled | Failure


@dataclass(frozen=True)
class Record:
    """A journal to read, as far as it is whole.

    Attributes:
        path: of the file.
        setting: what decides the run's outputs.
        done: how many pictures it knows.
        finished: whether the run came to its end.
        whole: how many of the file's bytes are whole lines.
    """

    path: Path
    setting: Setting
    done: int
    finished: bool
    whole: int

    def entries(self) -> Iterator[Entry]:
        """What became of each picture so far."""
        with self.path.open("rb") as file:
            for line in _up_to(file, self.whole):
                record = json.loads(line)
                if "path" in record:
                    yield _entry(record)

    def remaining(self, references: Iterable[tuple[int, ImageReference]]) -> Iterator[tuple[int, ImageReference]]:
        """Those of a run's pictures that are not in here.

        As long as the pictures come as they came before, nothing is held in memory.
        """
        done = (entry.result.path for entry in self.entries())
        coming = iter(references)
        for index, reference in coming:
            path = next(done, None)
            if path is None:
                yield index, reference
                yield from coming
            elif path != reference.path:
                left = Counter(_digest(one) for one in chain([path], done))
                for one in chain([(index, reference)], coming):
                    key = _digest(one[1].path)
                    if left[key] > 0:
                        left[key] -= 1
                    else:
                        yield one


def recorded(path: Path) -> Record | None:
    """The journal in a file, or None if there is none, not even a first line.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
            try:
                setting = json.loads(first)["setting"]
            except ValueError:
                return None
            if not first.endswith(b"\n"):
                return None
            whole, done, finished = len(first), 0, False
            for line in file:
                if not (line.startswith(b"{") and line.endswith(b"}\n")):
                    break
                whole += len(line)
                finished = line == FINISHED
                done += not finished
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name another --output") from error
    return Record(path, setting, done, finished, whole)


def check_that_nobody_writes(path: Path) -> None:
    """Refuse a journal that another process is writing.

    Raises:
        UsageError: there is one.
    """
    with writing(path), path.open("ab") as file:
        lock(file, path)


class Journal:
    """A journal to write.

    Args:
        path: of the file.
        setting: what decides the run's outputs.
        before: the journal of the run to go on with, or None to begin anew.
        folders: those in which its own folder, and what holds it, were given their names.

    Raises:
        OutputError: it cannot be written.
        UsageError: another process is writing it.
    """

    def __init__(
        self, path: Path, setting: Setting, before: Record | None = None, folders: Iterable[Path] = ()
    ) -> None:
        self.path = path
        with writing(path):
            self._file: IO[bytes] = path.open("ab")
            try:
                lock(self._file, path)
                self._file.truncate(before.whole if before else 0)
                if before is None:
                    self._write(json.dumps({"setting": setting}).encode() + b"\n")
            except BaseException:
                self._file.close()
                raise
        self._synced = time.monotonic()
        self._folders = {path.parent, *folders}

    def add(self, entry: Entry, folders: Iterable[Path] = ()) -> None:
        """Write what became of a picture, whose own outputs are on the disk.

        Args:
            entry: what to write.
            folders: where those outputs were given their names, which are made to last before the line is.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with writing(self.path):
            self._write(_line(entry))
            if time.monotonic() - self._synced > SYNC_AFTER:
                self._sync()

    def finish(self, folders: Iterable[Path] = ()) -> None:
        """Say that the run came to its end.

        Args:
            folders: where the files for all pictures were given their names.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with writing(self.path):
            self._write(FINISHED)

    def close(self) -> None:
        """Write no more.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.path), self._file:
            self._sync()

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def _sync(self) -> None:
        for folder in self._folders:
            sync_folder(folder)
        self._folders.clear()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


FINISHED = b'{"finished": true}\n'


def _line(entry: Entry) -> bytes:
    result = entry.result
    if isinstance(result, Failure):
        return json.dumps({"index": entry.index, **vars(result)}).encode() + b"\n"
    identity = {} if result.image_id is None else {"image_id": result.image_id}
    place = {"index": entry.index, "relative": result.relative, **identity}
    return json.dumps({**place, **result.as_record()}).encode() + b"\n"


def _entry(record: dict[str, Any]) -> Entry:
    if "kind" in record:
        return Entry(record["index"], Failure(record["path"], record["kind"], record["reason"]))
    return Entry(record["index"], of_record(record, record["relative"], record.get("image_id")))


def _up_to(file: IO[bytes], end: int) -> Iterator[bytes]:
    read = 0
    for line in file:
        read += len(line)
        if read > end:
            return
        yield line


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).digest()
