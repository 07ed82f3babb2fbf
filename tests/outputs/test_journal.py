"""Journals survive whatever ends a run."""

import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrcli.errors import OutputError, UsageError
from detrcli.images.sources import ImageReference
from detrcli.outputs.journal import Journal, RecordedRun, read_journal
from detrcli.outputs.record import Detection, Failure, ImageResult, Outcome

SETTING = {"threshold": 0.5, "names": ["a", "b"]}


def outcome(index: int, path: str) -> Outcome:
    if index % 3 == 2:
        return Outcome(index, Failure(path, "damaged", f"{path}: damaged image"))
    found = (Detection(1, "b", 0.5, (0.25, 1.0, 2.0, 3.5)),) * (index % 2)
    return Outcome(index, ImageResult(path, f"place/{path}", 40, 30, "model", found))


def write(path: Path, paths: Iterable[str], before: RecordedRun | None = None, *, finish: bool = False) -> None:
    journal = Journal(path, SETTING, before)
    start = 0 if before is None else before.done
    for index, one in enumerate(paths, start):
        journal.add(outcome(index, one))
    if finish:
        journal.finish()
    journal.close()


def read(path: Path) -> RecordedRun:
    record = read_journal(path)
    assert record is not None
    return record


def remaining(record: RecordedRun, paths: Iterable[str]) -> list[str]:
    references = enumerate(ImageReference(path, Path(path)) for path in paths)
    return [reference.path for _, reference in record.remaining(references)]


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    names = ["a.jpg", "b\n.jpg", "c\udcff.jpg", "日本.jpg"]
    write(path, names, finish=True)
    record = read(path)
    assert record.setting == SETTING
    assert record.finished
    assert list(record.outcomes()) == [outcome(index, name) for index, name in enumerate(names)]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b'{"setting": {"thr',
        b'{"setting": {}}',
        b"{}\n",
        b"null\n",
        b'{"setting": 3}\n',
        b"[]\n",
        b"\0" * 4096 + b"\n",
        b'{"setting": {}, "\xff": 1}\n',
        b"[" * 200_000 + b"\n",
    ],
)
def test_a_file_without_a_valid_first_line_is_no_journal(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert read_journal(path) is None


@settings(deadline=None)
@given(st.data())
def test_a_run_cut_off_anywhere_resumes_to_the_same_end(
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
    assert len(rest) == len(names) - record.done == len(names) - len(list(record.outcomes()))
    write(path, rest, record, finish=True)
    assert list(read(path).outcomes()) == list(read(folder / "whole").outcomes())
    assert read(path).finished


LINES = {
    "a page of NUL bytes": bytes(4096),
    "NUL bytes to the end of the line": bytes(4096) + b"\n",
    "cut in the middle": b'{"index": 3, "relative": "pla{"index": 4, "path": "e", "kind": "x", "reason": "y"}\n',
    "nothing": b"\n",
    "no object": b"null\n",
    "an empty object": b"{}\n",
    "other keys": b'{"index": 3, "path": "x"}\n',
    "keys in another order": b'{"path": "x", "index": 3, "kind": "damaged", "reason": "x"}\n',
    "values of another type": b'{"index": "3", "path": "x", "kind": "damaged", "reason": "x"}\n',
    "boxes of three": b'{"index": 3, "relative": "x", "path": "x", "size": {"width": 1, "height": 1}, "model": "m", '
    b'"detections": [{"label_id": 0, "label": "a", "score": 0.5, "box": [0, 0, 1]}]}\n',
    "very deep": b'{"index": ' + b"[" * 200_000 + b"}\n",
    "not UTF-8": b'{"index": 3, "path": "\xff", "kind": "damaged", "reason": "x"}\n',
}


@pytest.mark.parametrize("hole", LINES)
def test_lines_after_an_invalid_one_are_dropped(tmp_path: Path, hole: str) -> None:
    path = tmp_path / "journal.jsonl"
    names = [f"{number}.jpg" for number in range(8)]
    write(path, names, finish=True)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], LINES[hole], *lines[4:]]))
    record = read(path)
    assert (record.done, record.finished, record.whole) == (3, False, sum(map(len, lines[:4])))
    assert remaining(record, names) == names[3:]
    write(path, names[3:], record, finish=True)
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(("again", "at"), [(2, 3), (2, 6), (1, 9)])
def test_lines_after_a_repeated_one_are_dropped(tmp_path: Path, again: int, at: int) -> None:
    path = tmp_path / "journal.jsonl"
    names = [f"{number}.jpg" for number in range(8)]
    write(path, names, finish=True)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:at], lines[again], *lines[at:]]))
    record = read(path)
    assert (record.done, record.whole) == (at - 1, sum(map(len, lines[:at])))
    write(path, names[at - 1 :], record, finish=True)
    assert path.read_bytes() == b"".join(lines)


def test_a_run_may_finish_more_than_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ["a", "b"], finish=True)
    write(path, [], read(path), finish=True)
    write(path, ["c"], read(path), finish=True)
    record = read(path)
    assert (record.done, record.finished, record.whole) == (3, True, path.stat().st_size)


def test_a_changed_order_takes_few_bytes_per_image(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    count = 20_000
    names = [f"{number}.jpg" for number in range(count)]
    write(path, names)
    record = read(path)
    rest = record.remaining((index, ImageReference(f"{index}.jpg", Path("x"))) for index in reversed(range(count + 1)))
    tracemalloc.start()
    try:
        assert [reference.path for _, reference in rest] == [f"{count}.jpg"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60 * count


def test_a_journal_that_was_removed_or_replaced_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for change in (path.unlink, lambda: path.rename(tmp_path / "other")):
        journal = Journal(path, SETTING)
        journal.add(outcome(0, "a"))
        change()
        with pytest.raises(OutputError, match="was removed or replaced while it was written"):
            journal.recorded()
        with pytest.raises(OutputError, match="was removed or replaced"):
            journal.close()
        path.unlink(missing_ok=True)


def test_images_may_be_added_removed_or_reordered(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ["a", "c", "d", "e"])
    record = read(path)
    assert not record.finished
    assert remaining(record, ["a", "c", "d", "e", "f", "g"]) == ["f", "g"]
    assert remaining(record, ["a", "b", "c", "d", "e", "f"]) == ["b", "f"]
    assert remaining(record, ["c", "e", "f"]) == ["f"]
    assert remaining(record, ["e", "d", "c", "a", "a"]) == ["a"]
    assert remaining(record, []) == []


def test_an_image_that_is_named_twice_is_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ["a", "b", "a"])
    assert remaining(read(path), ["a", "b", "a", "b", "a"]) == ["b", "a"]


def test_only_one_process_writes_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTING)
    journal.add(outcome(0, "a"))
    with pytest.raises(UsageError, match="another run is writing"):
        Journal(path, SETTING)
    journal.add(outcome(1, "b"))
    journal.close()
    assert [one.index for one in read(path).outcomes()] == [0, 1]


def test_each_line_is_flushed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTING)
    journal.add(outcome(0, "a"))
    assert json.loads(path.read_bytes().splitlines()[-1])["path"] == "a"
    journal.close()
