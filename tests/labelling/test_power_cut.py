"""What a journal says is done has its names on the disk before the journal's own line is, whatever order disks keep."""

import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from detrcli import journal
from detrcli.clock import Clock
from detrcli.detections import Detections
from detrcli.formats import csv
from detrcli.images.sources import ImageReference
from detrcli.labelled import Labelled
from detrcli.labelling import FOLDER, JOURNAL, Labelling, Plan

PLAN = Plan("model", "", ("cat",), "pictures", None, ("json", "voc", "csv"), False, {})
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (), 40, 30)


class Disk:
    """A disk that after a power cut may have any of what was not synced.

    Attributes:
        unsafe: new names that a power cut would take back.
        lost: those of them that a journal on the disk spoke of.
    """

    def __init__(self, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsafe: set[Path] = set()
        self.lost: set[Path] = set()
        fsync, replace = os.fsync, Path.replace

        def noting_fsync(number: int) -> None:
            fsync(number)
            synced = os.fstat(number)
            if os.path.samestat(synced, journal.stat()):
                self.lost |= self.unsafe
            self.unsafe = {one for one in self.unsafe if not os.path.samestat(synced, one.parent.stat())}

        def noting_replace(path: Path, target: Path) -> Path:
            self.unsafe.add(target)
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(Path, "replace", noting_replace)


def test_what_is_not_whole_lies_where_the_next_run_takes_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: IO[bytes], *_: object) -> None:
        assert file.name is not None
        seen.append(Path(file.name).parent)

    seen: list[Path] = []
    monkeypatch.setattr(csv, "write", stop)
    Labelling(tmp_path, PLAN).close(finished=True)
    assert seen == [tmp_path / FOLDER]


def test_single_pictures_keep_out_of_each_others_way_and_leave_nothing(tmp_path: Path) -> None:
    first, second = (Labelling(tmp_path, PLAN, keep=False) for _ in range(2))
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    first.close(finished=True)
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    del second  # as where an error ends it
    assert [one.name for one in tmp_path.iterdir()] == ["detections.csv"]


def test_no_line_outlasts_the_names_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SYNC_AFTER", 0)
    disk = Disk(tmp_path / FOLDER / JOURNAL, monkeypatch)
    labelling = Labelling(tmp_path, PLAN)
    for index, name in enumerate(("a.jpg", "b/c/d.jpg", "b/e.jpg")):
        labelled = Labelled(f"pictures/{name}", name, 40, 30, "model", ())
        labelling.write(ImageReference(labelled.path, Path(name)), None, NOTHING, labelled, Clock())
        assert disk.unsafe
        labelling.add(index, labelled)
    labelling.close(finished=True)
    assert (tmp_path / "detections.csv").exists()
    assert not disk.lost
    assert not disk.unsafe
