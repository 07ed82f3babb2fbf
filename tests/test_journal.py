"""What a run has done outlives whatever ends it."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrcli.errors import UsageError
from detrcli.images.sources import ImageReference
from detrcli.journal import Entry, Failure, Journal, Record, recorded
from detrcli.labelled import Found, Labelled

SETTING = {"threshold": 0.5, "names": ["a", "b"]}


def entry(index: int, path: str) -> Entry:
    if index % 3 == 2:
        return Entry(index, Failure(path, "damaged", f"{path}: damaged picture"))
    found = (Found(1, "b", 0.5, (0.25, 1.0, 2.0, 3.5)),) * (index % 2)
    return Entry(index, Labelled(path, f"place/{path}", 40, 30, "model", found))


def write(path: Path, paths: Iterable[str], before: Record | None = None, *, finish: bool = False) -> None:
    journal = Journal(path, SETTING, before)
    start = 0 if before is None else before.done
    for index, one in enumerate(paths, start):
        journal.add(entry(index, one))
    if finish:
        journal.finish()
    journal.close()


def read(path: Path) -> Record:
    record = recorded(path)
    assert record is not None
    return record


def remaining(record: Record, paths: Iterable[str]) -> list[str]:
    references = enumerate(ImageReference(path, Path(path)) for path in paths)
    return [reference.path for _, reference in record.remaining(references)]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    names = ["a.jpg", "b\n.jpg", "c\udcff.jpg", "日本.jpg"]
    write(path, names, finish=True)
    record = read(path)
    assert record.setting == SETTING
    assert record.finished
    assert list(record.entries()) == [entry(index, name) for index, name in enumerate(names)]


@pytest.mark.parametrize("content", [None, b"", b'{"setting": {"thr', b'{"setting": {}}'])
def test_what_has_not_even_begun_is_no_journal(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert recorded(path) is None


@settings(deadline=None)
@given(st.data())
def test_cut_off_anywhere_it_goes_on_and_ends_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    names = [f"{number}.jpg" for number in range(6)]
    write(folder / "whole", names, finish=True)
    whole = (folder / "whole").read_bytes()
    end = data.draw(st.integers(len(whole.splitlines(keepends=True)[0]), len(whole)))
    garbage = data.draw(st.sampled_from([b"", bytes(30), b'{"index": 3, "pa', b"{}\0\n"]))
    path = folder / "cut"
    path.write_bytes(whole[:end] + garbage)
    record = read(path)
    rest = remaining(record, names)
    assert len(rest) == len(names) - record.done == len(names) - len(list(record.entries()))
    write(path, rest, record, finish=True)
    assert list(read(path).entries()) == list(read(folder / "whole").entries())
    assert read(path).finished


def test_pictures_that_came_or_went_or_moved_since(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ["a", "c", "d", "e"])
    record = read(path)
    assert not record.finished
    assert remaining(record, ["a", "c", "d", "e", "f", "g"]) == ["f", "g"]
    assert remaining(record, ["a", "b", "c", "d", "e", "f"]) == ["b", "f"]
    assert remaining(record, ["c", "e", "f"]) == ["f"]
    assert remaining(record, ["e", "d", "c", "a", "a"]) == ["a"]
    assert remaining(record, []) == []


def test_a_picture_that_is_named_twice_is_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ["a", "b", "a"])
    assert remaining(read(path), ["a", "b", "a", "b", "a"]) == ["b", "a"]


def test_only_one_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTING)
    journal.add(entry(0, "a"))
    with pytest.raises(UsageError, match="another run is writing"):
        Journal(path, SETTING)
    journal.add(entry(1, "b"))
    journal.close()
    assert [one.index for one in read(path).entries()] == [0, 1]


def test_each_line_is_on_its_way_to_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTING)
    journal.add(entry(0, "a"))
    assert json.loads(path.read_bytes().splitlines()[-1])["path"] == "a"
    journal.close()
