"""COCO ids of outputs: numbered as pycocotools and `detr eval` expect, or taken from a COCO file."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detrcli.datasets.coco_ids import CocoIds, read_coco_ids
from detrcli.errors import DatasetError, ImageError, UsageError
from detrcli.images.sources import ImageReference

from ...detr_process import detr
from ...tiny import save_tiny
from ..folders import encoded, small_image

MODEL = ("--model", "model", "--device", "cpu", "--precision", "fp32")
OPTIONS = (*MODEL, "--threshold", "0.3", "--no-draw", "--format", "coco", "--format", "coco-results")
NAMES = [f"{number}.png" for number in range(6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a model whose label 0 is a class, images, and the outputs of a run."""
    folder = tmp_path_factory.mktemp("ids")
    save_tiny(folder / "model")
    (folder / "images").mkdir()
    for number, name in enumerate(NAMES):
        (folder / "images" / name).write_bytes(encoded(small_image(number), "PNG"))
    run = detr("predict", "images", *OPTIONS, "--output", "own", cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder


def average_precision(truth: Path, results: Path) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        real = COCO(str(truth))
        evaluation = COCOeval(real, real.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def user_file(place: Path, name: str, images: Mapping[str, int | str]) -> Path:
    """Write coco.json with other ids, in another order, and without one of the classes."""
    coco = read(place / "own" / "coco.json")
    kept = [one for one in coco["categories"] if one["name"] != "thing 6"]
    categories = {one["id"]: 100 - 7 * one["id"] for one in kept}
    numbers = {one["id"]: images[one["file_name"]] for one in coco["images"] if one["file_name"] in images}
    content = {
        "categories": [{"id": categories[one["id"]], "name": one["name"].upper()} for one in reversed(kept)],
        "images": [
            {**one, "id": numbers[one["id"]], "file_name": f"val/{one['file_name']}"}
            for one in coco["images"]
            if one["id"] in numbers
        ],
        "annotations": [
            {**one, "image_id": numbers[one["image_id"]], "category_id": categories[one["category_id"]]}
            for one in coco["annotations"]
            if one["image_id"] in numbers and one["category_id"] in categories
        ],
    }
    path = place / name
    path.write_text(json.dumps(content))
    return path


def test_ids_start_at_1_and_agree_with_eval_and_pycocotools(place: Path) -> None:
    coco = read(place / "own" / "coco.json")
    assert [(one["id"], one["name"]) for one in coco["categories"]] == [(n + 1, f"thing {n}") for n in range(7)]
    assert {one["id"] for one in coco["images"]} == set(range(1, len(NAMES) + 1))
    assert len(coco["annotations"]) > len(NAMES)
    assert average_precision(place / "own" / "coco.json", place / "own" / "coco-results.json") == pytest.approx(1)
    (place / "images" / "coco.json").write_bytes((place / "own" / "coco.json").read_bytes())
    run = detr("eval", "images", *MODEL, "--save-predictions", "eval.json", cwd=place)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["ap"] == pytest.approx(1, abs=1e-6)
    by_eval, by_predict = read(place / "eval.json"), read(place / "own" / "coco-results.json")
    key = [(one["image_id"], one["category_id"], round(one["score"], 4)) for one in by_eval]
    assert {(one["image_id"], one["category_id"], round(one["score"], 4)) for one in by_predict} <= set(key)


@pytest.mark.parametrize("ids", [range(600, 594, -1), "fedcba"], ids=["numbers", "text"])
def test_ids_are_taken_from_a_file(place: Path, ids: Iterable[int | str]) -> None:
    images = dict(zip(NAMES, ids, strict=True))
    truth = user_file(place, "instances.json", images)
    run = detr("predict", "images", *OPTIONS, "-o", "given", "--image-ids", truth, "--no-resume", cwd=place)
    assert run.returncode == 0, run.stderr
    assert "has no such category: 'thing 6'" in run.stderr
    results = read(place / "given" / "coco-results.json")
    assert average_precision(truth, place / "given" / "coco-results.json") == pytest.approx(1)
    assert len(results) == len(read(truth)["annotations"])
    coco = read(place / "given" / "coco.json")
    assert {one["file_name"]: one["id"] for one in coco["images"]} == images
    titles = {one["id"]: one["name"].upper() for one in coco["categories"]}
    assert titles == {one["id"]: one["name"] for one in read(truth)["categories"]}


def test_shards_are_merged_with_ids_and_another_file_is_refused(place: Path) -> None:
    truth = user_file(place, "sharded.json", dict(zip(NAMES, range(10, 16), strict=True)))
    for shard in ("0/2", "1/2"):
        arguments = ("-o", "shards", "--image-ids", truth, "--shard", shard)
        assert detr("predict", "images", *OPTIONS, *arguments, cwd=place).returncode == 0
    assert detr("predict", "images", *OPTIONS, "-o", "one", "--image-ids", truth, cwd=place).returncode == 0
    truth_bytes = truth.read_bytes()
    truth.unlink()
    assert detr("merge", "shards", cwd=place).returncode == 0
    for name in ("coco.json", "coco-results.json"):
        assert (place / "shards" / name).read_bytes() == (place / "one" / name).read_bytes()
    truth.write_bytes(truth_bytes + b" ")
    run = detr("predict", "images", *OPTIONS, "-o", "one", "--image-ids", truth, "--resume", cwd=place)
    assert run.returncode == 2
    assert "began with image_ids = " in run.stderr
    run = detr("predict", "images", *OPTIONS, "-o", "one", "--resume", cwd=place)
    assert run.returncode == 2
    assert "began with image_ids = " in run.stderr


def test_image_without_id_fails_alone(place: Path) -> None:
    truth = user_file(place, "short.json", {name: number for number, name in enumerate(NAMES[:5])})
    (place / "twice" / "a").mkdir(parents=True)
    for path in ("0.png", "a/0.png", "5.png"):
        (place / "twice" / path).write_bytes((place / "images" / "0.png").read_bytes())
    run = detr("predict", "twice", "-r", *OPTIONS, "-o", "failed", "--image-ids", truth, cwd=place)
    assert run.returncode == 1
    reasons = {Path(one["path"]): one for one in map(json.loads, (place / "failed" / "failures.jsonl").open())}
    assert {one["kind"] for one in reasons.values()} == {"no image id"}
    assert reasons[Path("twice/5.png")]["reason"] == f"twice/5.png: {truth} does not list it"
    assert reasons[Path("twice/a/0.png")]["reason"] == (
        f"twice/a/0.png: {truth} lists only one image (id 0) for it and another"
    )
    assert [one["file_name"] for one in read(place / "failed" / "coco.json")["images"]] == ["0.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image-ids", "own/coco.json", "-f", "csv"), "--image-ids needs --format coco or coco-results"),
        (("--image-ids", "none.json", "-f", "coco"), "cannot read none.json: No such file or directory"),
        (("--image-root", "/data", "-f", "csv"), "--image-root needs --format label-studio"),
    ],
)
def test_wrong_usage(place: Path, arguments: tuple[str, ...], message: str) -> None:
    run = detr("predict", "images", *arguments, cwd=place)
    assert (run.returncode, run.stderr) == (2, f"detr: {message}\n")


def coco_ids(folder: Path, images: object, categories: object = ()) -> CocoIds:
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "categories": categories}))
    return read_coco_ids(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("photos/train/a.jpg", 1),
        ("photos/val/a.jpg", 2),
        ("a.jpg", None),  # ambiguous
        ("elsewhere/b.jpg", "x"),
        ("photos/val\\a.jpg", None),
        ("https://host/val/a.jpg?width=9", 2),
        ("https://host/c%20d.jpg", 4),
        ("c d.jpg", 4),
        ("photos/none.jpg", None),
        ("ab.jpg", None),
    ],
)
def test_image_id_by_the_end_of_the_path(tmp_path: Path, path: str, expected: int | str | None) -> None:
    names = {"train/a.jpg": 1, "val\\a.jpg": 2, "deep/er/b.jpg": "x", "./c d.jpg": 4}
    ids = coco_ids(tmp_path, [{"file_name": name, "id": image_id} for name, image_id in names.items()])
    assert ids.image_id(path) == expected


def test_first_of_several_images_gets_the_id(tmp_path: Path) -> None:
    ids = coco_ids(tmp_path, [{"file_name": "a.jpg", "id": 0}])
    one, two = ids.with_ids([ImageReference("x/a.jpg", Path("x/a.jpg")), ImageReference("y/a.jpg", Path("y/a.jpg"))])
    assert (one.image_id, two.image_id) == (0, None)
    ids.require_id(one)
    with pytest.raises(ImageError, match=r"y/a\.jpg: .* lists only one image \(id 0\) for it and another"):
        ids.require_id(two)


def test_category_ids_by_name(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": " Dog "}, {"id": 0, "name": "cat"}, {"id": 3, "name": "N/A"}]
    ids = coco_ids(tmp_path, [], categories)
    assert ids.category_ids(("N/A", "cat", "bird", "dog")) == (None, 0, None, 90)
    with pytest.raises(UsageError, match="with the name of a class of the model, but 'Dog', 'cat', 'N/A'"):
        ids.category_ids(("bird",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "is not a COCO file"),
        (b"null", "is not a COCO file"),
        (b'{"images": [], "categories": null}', "is not a COCO file"),
        (b'{"images": [{"id": 1}], "categories": []}', "is not a COCO file"),
        (b'{"images": [{"id": 1, "file_name": null}], "categories": []}', "is not a COCO file"),
        (b'{"images": [{"id": [], "file_name": "a"}], "categories": []}', "is not a COCO file"),
        (b'{"images": [{"id": true, "file_name": "a"}], "categories": []}', "is not a COCO file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_coco_ids(path)
