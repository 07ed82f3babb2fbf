"""What each output format writes is read again by the standard readers, and single files appear only when whole."""

import csv
import json
import os
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detrcli.formats
from detrcli.detections import Detections, as_record
from detrcli.errors import OutputError
from detrcli.formats import FORMATS, open_writer
from detrcli.images.sources import ImageReference

MODEL = "facebook/detr-resnet-50"
NAMES = ('a, "b"', "two\nlines", "cr\r\nlf", "日本 🦊", "plain", "=1+1", "", "line\u2028separator")
PATHS = ("plain.jpg", "sub dir/ünï 🦊.png", 'quo"te, comma.jpg', "line\nbreak.jpg", os.fsdecode(b"raw\xff\xe9.jpg"))


def found(names: tuple[str, ...] = NAMES) -> Detections:
    count = len(names)
    rng = np.random.default_rng(3)
    return Detections(
        boxes=rng.uniform(0, 600, (count, 4)).astype(np.float32),
        scores=np.sort(rng.uniform(0.5, 1, count).astype(np.float32))[::-1],
        labels=np.arange(count, dtype=np.int64),
        names=names,
        width=640,
        height=480,
    )


def write(name: str, output: Path, pictures: dict[str, Detections]) -> list[Any]:
    with open_writer(name, output) as write_one:
        for path, detections in pictures.items():
            write_one(ImageReference(path, Path(path)), MODEL, detections)
    return [as_record(path, MODEL, detections) for path, detections in pictures.items()]


def pictures() -> dict[str, Detections]:
    return {path: found(()) if index == 1 else found() for index, path in enumerate(PATHS)}


def test_the_table_lists_exactly_the_formats_that_there_are(tmp_path: Path) -> None:
    assert set(FORMATS) == {module.name for module in pkgutil.iter_modules(detrcli.formats.__path__)}
    for name in FORMATS:
        with open_writer(name, tmp_path / name) as write_one:
            assert callable(write_one)


def test_json_is_a_file_for_each_picture(tmp_path: Path) -> None:
    records = write("json", tmp_path, pictures())
    for path, record in zip(PATHS, records, strict=True):
        assert json.loads((tmp_path / f"{path}.json").read_text("utf-8")) == record
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(PATHS)


def test_jsonl_is_a_line_for_each_picture(tmp_path: Path) -> None:
    records = write("jsonl", tmp_path, pictures())
    lines = (tmp_path / "detections.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == records
    assert os.fsencode(json.loads(lines[-1])["path"]) == b"raw\xff\xe9.jpg"


def test_csv_is_a_row_for_each_detection(tmp_path: Path) -> None:
    records = write("csv", tmp_path, pictures())
    with open(tmp_path / "detections.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == "path width height label_id label score x1 y1 x2 y2".split()
    expected = [(record, one) for record in records for one in record["detections"]]
    assert len(rows) == len(expected) == (len(PATHS) - 1) * len(NAMES)
    for row, (record, one) in zip(rows, expected, strict=True):
        assert (row["path"], int(row["width"]), int(row["height"])) == (record["path"], 640, 480)
        assert (int(row["label_id"]), row["label"], float(row["score"])) == (
            one["label_id"],
            one["label"],
            one["score"],
        )
        assert [float(row[side]) for side in ("x1", "y1", "x2", "y2")] == one["box"]
    assert b"raw\xff\xe9.jpg" in (tmp_path / "detections.csv").read_bytes()


def test_csv_of_plain_paths_is_utf_8(tmp_path: Path) -> None:
    write("csv", tmp_path, {"sub dir/ünï 🦊.png": found()})
    assert "ünï 🦊.png" in (tmp_path / "detections.csv").read_text("utf-8")


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_no_picture_gives_a_file_without_detections(tmp_path: Path, name: str) -> None:
    write(name, tmp_path, {})
    assert len((tmp_path / f"detections.{name}").read_bytes().splitlines()) == (1 if name == "csv" else 0)


def interrupted(name: str, output: Path) -> None:
    with open_writer(name, output) as write_one:
        write_one(ImageReference("a.jpg", Path("a.jpg")), MODEL, found())
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_single_file_appears_only_when_all_went_well(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(name, tmp_path)
    assert os.listdir(tmp_path) == []
    old = tmp_path / f"detections.{name}"
    old.write_bytes(b"of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        interrupted(name, tmp_path)
    assert old.read_bytes() == b"of an earlier run"
    assert os.listdir(tmp_path) == [old.name]
    write(name, tmp_path, {"a.jpg": found()})
    assert b"a.jpg" in old.read_bytes()


def test_json_keeps_what_was_written_before_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted("json", tmp_path)
    assert os.listdir(tmp_path) == ["a.jpg.json"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_output_that_is_a_file_is_one_error(tmp_path: Path, name: str) -> None:
    output = tmp_path / "taken"
    output.write_bytes(b"kept")
    with pytest.raises(OutputError, match="; choose another place"):
        write(name, output, {"a.jpg": found()})
    assert output.read_bytes() == b"kept"
