"""Rendered scenes: reproducible, with tight boxes, and written atomically."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from detrcli.errors import OutputError
from tests.scenes import CLASSES, FIRST_OF_VAL, Scene, __main__, scene, write
from tests.scenes.__main__ import main
from tests.scenes.layout import Floats, Item, arrange

Mask = NDArray[np.bool_]


def covered(item: Item, size: tuple[int, int], margin: int) -> Mask:
    """Mask of an item on the image with a margin, by counting crossings of the outline."""
    width, height = size
    x = np.arange(-margin, width + margin)[None, :] + 0.5
    y = np.arange(-margin, height + margin)[:, None] + 0.5
    within = np.zeros((height + 2 * margin, width + 2 * margin), bool)
    for curve in item.outline:
        for (x1, y1), (x2, y2) in zip(curve.astype(float), np.roll(curve, -1, 0).astype(float), strict=True):
            if y1 != y2:
                within ^= ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return within


def edges(visible: Mask) -> Mask:
    """Border pixels of a mask."""
    inner = np.pad(visible, 1, mode="edge")
    return visible & ~(inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:])


def test_scenes_are_reproducible_and_distinct() -> None:
    first, again = scene(3, 17), scene(3, 17)
    assert first.image.tobytes() == again.image.tobytes()
    assert np.array_equal(first.boxes, again.boxes)
    assert np.array_equal(first.labels, again.labels)
    others = [scene(3, 18), scene(17, 3), scene(3, FIRST_OF_VAL + 17)]
    assert len({first.image.tobytes(), *(other.image.tobytes() for other in others)}) == 4


def test_boxes_are_inside_the_image() -> None:
    for index in range(60):
        made = scene(1, index)
        width, height = made.image.size
        assert made.image.mode == "RGB"
        assert min(width, height) >= 240
        assert max(width, height) <= 400
        assert max(width, height) * 3 <= min(width, height) * 4
        assert 1 <= len(made.labels) <= 10
        assert made.boxes.shape == (len(made.labels), 4)
        assert made.boxes.dtype == np.float32
        assert made.labels.dtype == np.int64
        assert (made.boxes[:, :2] >= 0).all()
        assert (made.boxes[:, 2:] <= (width, height)).all()
        assert (made.boxes[:, :2] < made.boxes[:, 2:]).all()


def test_boxes_and_visibility_against_another_rasterization() -> None:
    margin = 120
    for index in range(30):
        layout = arrange(2, index)
        boxes = scene(2, index).boxes
        masks = [covered(item, layout.size, margin) for item in layout.items]
        for number, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
            hidden = np.logical_or.reduce([np.zeros_like(mask), *masks[number + 1 :]])
            inside = mask[margin:-margin, margin:-margin]
            expected = inside & ~hidden[margin:-margin, margin:-margin]
            assert inside.sum() >= 0.58 * mask.sum()
            assert expected.sum() >= 0.34 * mask.sum()
            visible = layout.owner == number
            assert (expected ^ visible).sum() <= 2 + 0.3 * edges(visible).sum()
            assert_box_of(visible, box)


def assert_box_of(visible: Mask, box: Floats) -> None:
    x1, y1, x2, y2 = box.astype(int)
    assert [x1, y1, x2, y2] == box.tolist()
    assert visible[y1:y2, x1:x2].sum() == visible.sum()
    for side in (visible[y1, :], visible[y2 - 1, :], visible[:, x1], visible[:, x2 - 1]):
        assert side.any()


def test_objects_are_visible_at_their_boxes() -> None:
    faint = count = 0
    for index in range(60):
        made = scene(4, index)
        layout = arrange(4, index)
        pixels = np.asarray(made.image, np.float32)
        change = np.hypot(*np.gradient(pixels, axis=(0, 1))).max(2)
        for number in range(len(made.labels)):
            visible = layout.owner == number
            border = edges(visible)
            border[[0, -1]] = border[:, [0, -1]] = False
            count += 1
            faint += bool(np.median(change[border]) < 15)
    assert count > 200
    assert faint < 0.02 * count


def test_every_class_occurs() -> None:
    labels = [item.label for index in range(200) for item in arrange(5, index).items]
    counts = np.bincount(labels, minlength=len(CLASSES))
    assert len(counts) == len(CLASSES) == len(set(CLASSES))
    assert counts.min() > 0.5 * counts.mean()


def test_write(tmp_path: Path) -> None:
    write(tmp_path / "set", 5, seed=6, first=40)
    record = json.loads((tmp_path / "set" / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in record["categories"]}
    assert list(names.items()) == list(enumerate(CLASSES, 1))
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        *(f"{position:06d}.jpg" for position in range(5)),
        "annotations.json",
    ]
    assert len({annotation["id"] for annotation in record["annotations"]}) == len(record["annotations"])
    for position, image in enumerate(record["images"]):
        made = scene(6, 40 + position)
        with Image.open(tmp_path / "set" / image["file_name"]) as opened:
            assert opened.format == "JPEG"
            assert opened.size == (image["width"], image["height"]) == made.image.size
            difference = np.asarray(opened, np.float32) - np.asarray(made.image, np.float32)
        assert np.abs(difference).mean() < 12
        own = [annotation for annotation in record["annotations"] if annotation["image_id"] == image["id"]]
        assert [names[annotation["category_id"]] for annotation in own] == [CLASSES[label] for label in made.labels]
        for annotation, (x1, y1, x2, y2) in zip(own, made.boxes.tolist(), strict=True):
            assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert annotation["area"] == (x2 - x1) * (y2 - y1)
            assert annotation["iscrowd"] == 0


def test_parallel_writing_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one", 20, seed=7)
    monkeypatch.setattr("tests.scenes.writing.MIN_PARALLEL", 1)
    write(tmp_path / "several", 20, seed=7)
    one, several = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "several")
    )
    assert one == several
    assert len(one) == 21


def test_training_and_validation_share_no_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def record(folder: Path, count: int, seed: int, first: int = 0) -> None:
        calls.append((folder.name, seed, range(first, first + count)))

    monkeypatch.setattr(__main__, "write", record)
    main([str(tmp_path), "--train", "30", "--val", "20", "--seed", "9"])
    assert calls == [("train", 9, range(30)), ("val", 9, range(FIRST_OF_VAL, FIRST_OF_VAL + 20))]


def test_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "file" / "set", 1, seed=1)
    with pytest.raises(SystemExit, match="cannot write"):
        main([str(tmp_path / "file")])


def test_failure_leaves_no_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 2, seed=1)

    def fail_later(seed: int, index: int) -> Scene:
        if index == 2:
            raise RuntimeError("failed")
        return scene(seed, index)

    monkeypatch.setattr("tests.scenes.writing.scene", fail_later)
    with pytest.raises(RuntimeError, match="failed"):
        write(tmp_path, 4, seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.jpg", "000001.jpg"]


def test_kill_leaves_complete_files_and_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.scenes", str(tmp_path), "--train", "60", "--val", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path / 'train'}: 60 scenes\n"
        process.kill()
        process.communicate(timeout=60)  # until all processes have closed the pipe
    assert [path.parent.name for path in tmp_path.rglob("*.json")] == ["train"]
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as opened:
            opened.load()
