"""Files are on the disk before the journal line that mentions them, in whatever order disks write."""

import os
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from detrcli.detections import Detections
from detrcli.errors import OwnImageError
from detrcli.files import STATE_FOLDER
from detrcli.images.decode import DecodedImage
from detrcli.images.sources import ImageReference
from detrcli.outputs import journal, written
from detrcli.outputs.formats import csv
from detrcli.outputs.journal import JOURNAL
from detrcli.outputs.plan import Plan
from detrcli.outputs.record import Failure
from detrcli.outputs.run import OutputRun
from detrcli.outputs.shards import Shard

PLAN = Plan("model", "", ("cat",), "images", None, ("json", "voc", "csv"), False, {})
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (), 40, 30)


class Disk:
    """Disk that a power cut may leave with any part of what was not synced.

    Attributes:
        unsafe: new names that a power cut would take back.
        lost: those of them that a journal on the disk spoke of.
    """

    def __init__(self, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsafe: set[Path] = set()
        self.lost: set[Path] = set()
        self.sizes: dict[int, int] = {}
        fsync, replace, mkdir = os.fsync, Path.replace, os.mkdir

        def noting_fsync(number: int) -> None:
            fsync(number)
            synced = os.fstat(number)
            self.sizes[synced.st_ino] = synced.st_size
            if os.path.samestat(synced, journal.stat()):
                self.lost |= self.unsafe
            self.unsafe = {one for one in self.unsafe if not os.path.samestat(synced, one.parent.stat())}

        def noting_replace(path: Path, target: Path) -> Path:
            if not self.has_all_of(path):
                self.lost.add(target)
            self.unsafe.add(target)
            return replace(path, target)

        def noting_mkdir(path: str, *more: Any) -> None:
            mkdir(path, *more)
            self.unsafe.add(Path(path))

        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(os, "mkdir", noting_mkdir)
        monkeypatch.setattr(Path, "replace", noting_replace)

    def has_all_of(self, path: Path) -> bool:
        """Whether a file's bytes outlast a power cut."""
        return self.sizes.get(path.stat().st_ino) == path.stat().st_size


def test_incomplete_files_lie_where_the_next_run_removes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(file: IO[bytes], *_: object) -> None:
        assert file.name is not None
        seen.append(Path(file.name).parent)

    seen: list[Path] = []
    monkeypatch.setitem(csv.FILES, "detections.csv", stop)
    OutputRun(tmp_path, PLAN).close(finished=True)
    assert seen == [tmp_path / STATE_FOLDER]


def test_runs_on_single_images_do_not_interfere_and_leave_nothing(tmp_path: Path) -> None:
    first, second = (OutputRun(tmp_path, PLAN, resumable=False) for _ in range(2))
    assert len(list((tmp_path / STATE_FOLDER).glob("single-*"))) == 2
    first.close(finished=True)
    assert len(list((tmp_path / STATE_FOLDER).glob("single-*"))) == 1
    del second  # as where an error ends it
    assert sorted(one.name for one in tmp_path.iterdir()) == [STATE_FOLDER, "detections.csv"]
    assert [one.name for one in (tmp_path / STATE_FOLDER).iterdir()] == [written.LIST]


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, formats=("csv",), draw=True),
        replace(PLAN, formats=("csv",)),
        replace(PLAN, shard=Shard(0, 2)),
    ],
    ids=["formats", "annotated images", "for all", "shard"],
)
def test_no_journal_line_outlasts_the_files_it_mentions(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SYNC_AFTER", 0)
    output = tmp_path / "new" / "out"
    file = output / STATE_FOLDER / ("0-of-2" if plan.shard else "") / JOURNAL
    disk = Disk(file, monkeypatch)
    run = OutputRun(output, plan)
    disk.unsafe.add(file)
    decoded = DecodedImage(Image.new("RGB", (40, 30))) if plan.draw else None
    for index, name in enumerate(("a.jpg", "b/c/d.jpg", "b/e.jpg")):
        outcome = run.write((index, ImageReference(f"images/{name}", Path(name))), decoded, NOTHING)
        assert bool(disk.unsafe) is (index == 0 or plan.draw or "json" in plan.formats)
        run.add(outcome)
        assert disk.has_all_of(file)
    run.close(finished=True)
    assert disk.has_all_of(file)
    assert (output / "detections.csv").exists() is (plan.shard is None)
    assert not disk.lost
    assert not disk.unsafe


def test_an_annotated_image_does_not_replace_its_own_image(tmp_path: Path) -> None:
    decoded = DecodedImage(Image.new("RGB", (40, 30)))
    decoded.image.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    run = OutputRun(tmp_path, replace(PLAN, draw=True))
    outcome = run.write((0, ImageReference(str(tmp_path / "a.png"), Path("a.png"))), decoded, NOTHING)
    assert isinstance(outcome.result, Failure)
    assert "its annotated image would overwrite it" in outcome.result.reason
    assert outcome.error is OwnImageError
    run.close(finished=False)
    assert (tmp_path / "a.png").read_bytes() == before
