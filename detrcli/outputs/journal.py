"""Journal of a run over many images: a file of JSON lines that survives whatever ends the run.

The first line holds the run's settings; then comes a line for each image, in order, and a last line when the run is
complete. The files for all images are written from the journal.
"""

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

from ..errors import JournalError, OutputError
from ..files import as_output_error, lock, sync_folder
from .name_counts import NameCounts
from .record import Failure, ImageResult, IndexedReference, Outcome

Setting = Mapping[str, Any]

JOURNAL = "journal.jsonl"
SYNC_AFTER = 1.0
"""Seconds of work that a power cut may cost."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as far as its journal records it.

    Attributes:
        path: path of the journal.
        setting: settings that decide the run's outputs.
        done: number of images in the journal.
        finished: whether the run came to its end.
        whole: number of bytes at the start of the file that are valid lines.
    """

    path: Path
    setting: Setting
    done: int
    finished: bool
    whole: int

    def outcomes(self) -> Iterator[Outcome]:
        """Outcome of each image so far."""
        with self.path.open("rb") as file:
            for line in _up_to(file, self.whole):
                if (outcome := _parse_line(line)) is not None:
                    yield outcome

    def remaining(self, references: Iterable[IndexedReference]) -> Iterator[IndexedReference]:
        """Images of a run that the journal does not have.

        While the images come in the same order as before, none is held in memory; after that 16 bytes for each.
        """
        done = (outcome.result.path for outcome in self.outcomes())
        coming = iter(references)
        for index, reference in coming:
            path = next(done, None)
            if path is None:
                yield index, reference
                yield from coming
            elif path != reference.path:
                left = NameCounts(chain([path], done))
                yield from (one for one in chain([(index, reference)], coming) if not left.take(one[1].path))


def read_journal(path: Path) -> RecordedRun | None:
    """Read a journal up to the first line that is invalid or repeated; None without a valid first line.

    Raises:
        JournalError: the file cannot be read.
    """
    setting = read_setting(path)
    if setting is None:
        return None
    lengths, digests = array("Q"), array("q")
    with _reading(path), path.open("rb") as file:
        whole = len(file.readline())
        for line in file:
            if line != FINISHED and _parse_line(line) is None:
                break
            lengths.append(len(line))
            digests.append(hash(line))
    finishing = np.frombuffer(digests, np.int64) == hash(FINISHED)
    count = _first_repeated(np.frombuffer(digests, np.int64), finishing)
    whole += int(np.frombuffer(lengths, np.uint64)[:count].sum())
    return RecordedRun(path, setting, int((~finishing[:count]).sum()), bool(finishing[:count][-1:].any()), whole)


def read_setting(path: Path) -> Setting | None:
    """Settings in the first line of a journal, or None if there are none.

    Raises:
        JournalError: the file cannot be read.
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
        raise JournalError(f"cannot read {path}: {error.strerror}") from error


def ensure_not_locked(path: Path) -> None:
    """Refuse a journal that another process is writing.

    Raises:
        LockedError: another process is writing it.
    """
    with as_output_error(path), path.open("ab") as file:
        lock(file, path)


class Journal:
    """Journal that a run writes.

    Args:
        path: path of the file.
        setting: settings that decide the run's outputs.
        before: recorded part of the run to resume, or None to start anew.
        folders: folders in which the journal's own folder and its new parents were created.
        before_sync: called before written lines are synced to the disk.

    Raises:
        OutputError: it cannot be written.
        LockedError: another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        setting: Setting,
        before: RecordedRun | None = None,
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

    def add(self, outcome: Outcome, folders: Iterable[Path] = ()) -> None:
        """Write the outcome of an image whose own outputs are written.

        Args:
            outcome: what to write.
            folders: folders in which those outputs were created; they are synced before the line is.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with as_output_error(self.path):
            self._write(_format_line(outcome))
            self._done += 1
            if time.monotonic() - self._synced > SYNC_AFTER:
                self._sync()

    def recorded(self) -> RecordedRun:
        """Run as recorded so far.

        Raises:
            OutputError: the file was moved or removed.
        """
        self._check_place()
        return RecordedRun(self.path, self._setting, self._done, False, os.fstat(self._file.fileno()).st_size)

    def finish(self, folders: Iterable[Path] = ()) -> None:
        """Write that the run came to its end.

        Args:
            folders: folders in which the files for all images were created.

        Raises:
            OutputError: it cannot be written.
        """
        self._folders.update(folders)
        with as_output_error(self.path):
            self._write(FINISHED)

    def close(self) -> None:
        """Sync and close the file.

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
RESULT_KEYS = ("index", "relative", "path", "size", "model", "detections")
KEYS_WITH_ID = ("index", "relative", "image_id", *RESULT_KEYS[2:])
"""Keys of a line's object, in order."""


def _format_line(outcome: Outcome) -> bytes:
    result = outcome.result
    if isinstance(result, Failure):
        return json.dumps({"index": outcome.index, **vars(result)}).encode() + b"\n"
    identity = {} if result.image_id is None else {"image_id": result.image_id}
    place = {"index": outcome.index, "relative": result.relative, **identity}
    return json.dumps({**place, **result.as_record()}).encode() + b"\n"


def _parse_line(line: bytes) -> Outcome | None:
    """Outcome in a line that `_format_line` wrote, or None for any other line."""
    if not (line.startswith(b"{") and line.endswith(b"}\n")):
        return None
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(line)
        keys = tuple(record)
        if keys == FAILURE_KEYS:
            failure = Failure(record["path"], record["kind"], record["reason"])
            if _are(int, record["index"]) and _are(str, *vars(failure).values()):
                return Outcome(record["index"], failure)
        elif keys in (RESULT_KEYS, KEYS_WITH_ID):
            result = ImageResult.from_record(record, record["relative"], record.get("image_id"))
            found = result.detections
            if (
                _are(int, record["index"], result.width, result.height, *(one.label_id for one in found))
                and _are((int, str, NoneType), result.image_id)
                and _are(str, result.path, result.relative, result.model, *(one.label for one in found))
                and _are((int, float), *(value for one in found for value in (one.score, *one.box)))
                and all(len(one.box) == 4 for one in found)
            ):
                return Outcome(record["index"], result)
    return None


def _are(kind: type | tuple[type, ...], *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _first_repeated(digests: NDArray[np.int64], excepted: NDArray[np.bool_]) -> int:
    """Position of the first digest that occurred before and is not excepted, or the number of digests."""
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
