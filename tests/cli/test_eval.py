"""`detr eval` in processes of its own, with a tiny model."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import detrcli

from ..datasets.written import Box, as_coco, as_yolo, write_image, write_json, write_text
from ..detr_process import detr, on_a_terminal
from ..tiny import save_tiny
from .test_predict import Run, noise

SIZE = (90, 60)
IMAGES = ("0.png", "1.png", "turned.jpg")
CLASSES = tuple(f"THING {label}" for label in range(7))
"""Class names of the tiny model, in capitals."""
MODEL = ("--model", "model", "--device", "cpu", "--precision", "fp32")


@dataclass(frozen=True)
class Place:
    """Folder with a model, and with a dataset of that model's predictions."""

    folder: Path
    objects: dict[str, list[tuple[int, Box]]]

    def detr(self, *arguments: str, **options: Any) -> Run:
        run = detr("eval", *arguments, cwd=self.folder, **options)
        return Run(run.returncode, run.stdout, run.stderr)

    def on_a_terminal(self, *arguments: str) -> str:
        """Return what a terminal shows of a successful run, without control sequences."""
        return on_a_terminal("eval", *arguments, cwd=self.folder)

    def coco(self) -> dict[str, Any]:
        return as_coco(self.objects, CLASSES, SIZE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("eval")
    save_tiny(folder / "model")
    (folder / "set").mkdir()
    for number, name in enumerate(IMAGES[:2]):
        noise(number, *SIZE).save(folder / "set" / name)
    lying = noise(2, *reversed(SIZE))
    exif = lying.getexif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(folder / "set" / "turned.jpg", exif=exif)

    detector = detrcli.load(folder / "model", device="cpu", precision="fp32")
    found = detector.predict([folder / "set" / name for name in IMAGES], threshold=0)
    objects: dict[str, list[tuple[int, Box]]] = {}
    for name, one in zip(IMAGES, found, strict=True):
        corners = one.boxes.tolist()
        objects[name] = [(int(label), tuple(box)) for label, box in zip(one.labels, corners, strict=True)]
    place = Place(folder, objects)
    write_json(folder / "set" / "annotations.json", place.coco())
    return place


def annotated_classes(place: Place) -> set[str]:
    return {CLASSES[label] for objects in place.objects.values() for label, _ in objects}


def test_a_model_is_perfect_on_its_own_predictions(place: Place) -> None:
    run = place.detr("set", *MODEL, "--quiet")
    assert (run.code, run.stderr) == (0, "")
    (record,) = run.records
    assert list(record) == [
        *("model", "dataset", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar"),
        *("images", "objects", "classes"),
    ]
    assert (record["model"], record["dataset"], record["images"]) == ("model", "set", len(IMAGES))
    assert record["objects"] == sum(map(len, place.objects.values()))
    assert [record[name] for name in ("ap", "ap50", "ap75", "ar")] == pytest.approx([1] * 4)
    assert record["ap_large"] is None  # an image of 90 × 60 has no room for one
    assert list(record["classes"]) == list(CLASSES)
    for name, figures in record["classes"].items():
        expected = pytest.approx(1) if name in annotated_classes(place) else None
        assert figures == {"ap": expected, "ap50": expected}
    assert annotated_classes(place) < set(CLASSES), "no class without objects was tested"


def test_the_number_of_threads_does_not_matter(place: Place) -> None:
    alone, several = (place.detr("set", *MODEL, "--workers", number) for number in ("1", "3"))
    assert (alone.code, alone.stdout) == (0, several.stdout)


@dataclass(frozen=True)
class Imperfect:
    """Run on annotations that differ from the predictions, in YOLO format and COCO's, with problems."""

    run: Run
    record: dict[str, Any]
    predictions: Path
    truth: Path


@pytest.fixture(scope="module")
def imperfect(place: Place) -> Imperfect:
    objects = {name: found[:3] for name, found in place.objects.items()}
    first, *others = objects["0.png"]
    label, (x1, y1, x2, y2) = first
    objects["0.png"] = [(label, (x1, y1, x2, y1 + 0.8 * (y2 - y1))), *others]
    width = SIZE[0]
    bad: list[tuple[int, Box]] = [(0, (5, 5, 5, 9)), (1, (width + 1, 0, width + 9, 9))]
    for name, found in objects.items():
        write_text(place.folder / "set" / f"{Path(name).stem}.txt", as_yolo(found + bad * (name == "turned.jpg"), SIZE))
    names = "".join(f"  {label}: {name}\n" for label, name in enumerate(CLASSES))
    write_text(place.folder / "yolo" / "data.yaml", f"path: ../set\nval: .\nnames:\n{names}")
    truth = write_json(place.folder / "truth.json", as_coco(objects, CLASSES, SIZE))
    run = place.detr("yolo", *MODEL, "--save-predictions", "new/found.json")
    return Imperfect(run, json.loads(run.stdout), place.folder / "new" / "found.json", truth)


def test_problems_are_reported(imperfect: Imperfect) -> None:
    assert imperfect.run.code == 0
    flat, outside, *idle, where = imperfect.run.messages
    turned = Path("yolo/../set/turned.jpg")
    message = "yolo/data.yaml (val): 1 boxes"
    assert flat == f"{message} have no width or height, such as in {turned}: skipped"
    assert outside == f"{message} are outside their image, such as in {turned}: skipped"
    assert len(idle) == 1
    assert re.fullmatch(r"yolo/data\.yaml \(val\): \d classes have no objects: ('THING \d'(, )?)+(, …)?", idle[0])
    assert where.startswith("model, 3 images, on cpu, fp32")


def test_saved_predictions_have_the_same_metrics_in_pycocotools(place: Place, imperfect: Imperfect) -> None:
    results = json.loads(imperfect.predictions.read_text())
    assert len(results) == sum(map(len, place.objects.values()))
    truth = COCO(str(imperfect.truth))
    images = {place: image["id"] for place, image in enumerate(truth.dataset["images"], start=1)}
    for result in results:  # YOLO has no ids but places, which count from 1
        result["image_id"], result["category_id"] = images[result["image_id"]], 10 * result["category_id"]
    coco_eval = COCOeval(truth, truth.loadRes(results), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    expected = {name: coco_eval.stats[at] for name, at in (("ap", 0), ("ap50", 1), ("ap75", 2), ("ar", 8))}
    assert {name: imperfect.record[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0 < imperfect.record["ap"] < 1
    assert [path.name for path in imperfect.predictions.parent.iterdir()] == ["found.json"]


def test_a_table_on_a_terminal(place: Place) -> None:
    shown = place.on_a_terminal("set", *MODEL)
    assert f"{len(IMAGES)} images, {sum(map(len, place.objects.values()))} objects; all figures in perc" in shown
    assert re.search(r"AP +AP50 +AP75 +small +medium +large +recall", shown)
    assert re.search(r"^ +100\.0 +100\.0 +100\.0 .* – +100\.0 *$", shown, re.MULTILINE)
    rows = re.findall(r"^ +(THING \d) +100\.0 +100\.0 *$", shown, re.MULTILINE)
    assert set(rows) == annotated_classes(place)
    assert len(rows) == len(annotated_classes(place))
    assert '"ap"' not in shown


def test_json_on_a_terminal(place: Place) -> None:
    shown = place.on_a_terminal("set/annotations.json", *MODEL, "--json", "--quiet")
    assert json.loads(shown)["ap"] == pytest.approx(1)


def test_a_damaged_image_leaves_no_partial_output(place: Place, tmp_path: Path) -> None:
    for name in IMAGES:
        (tmp_path / name).write_bytes((place.folder / "set" / name).read_bytes())
    (tmp_path / "turned.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:-300])
    write_json(tmp_path / "a.json", place.coco())
    kept = write_text(tmp_path / "out" / "found.json", "earlier")
    run = place.detr(str(tmp_path), *MODEL, "--quiet", "--save-predictions", str(kept))
    assert (run.code, run.stdout) == (2, "")
    (message,) = run.messages
    assert message.startswith(f"detr: {tmp_path / 'turned.jpg'}: damaged image")
    assert kept.read_text() == "earlier"
    assert list(kept.parent.iterdir()) == [kept]


def test_classes_that_the_model_lacks(place: Place, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_json(tmp_path / "a.json", as_coco({"a.png": [(0, (1, 1, 9, 9))]}, ["thign 1"]))
    run = place.detr(str(tmp_path), *MODEL)
    assert (run.code, run.stdout) == (2, "")
    assert run.messages[1:] == [
        f"detr: {tmp_path / 'a.json'}: the model has no class 'thign 1'; its classes are thing 0, thing 1, thing 2, "
        "thing 3, thing 4, …; train a model on this dataset with `detr train`, or rename the classes"
    ]


def test_predictions_that_cannot_be_written(place: Place) -> None:
    write_text(place.folder / "taken", "kept")
    run = place.detr("set", *MODEL, "--quiet", "--save-predictions", "taken/found.json")
    assert (run.code, run.stdout) == (2, "")
    (message,) = run.messages
    assert re.fullmatch("detr: cannot write taken/found.json: .+; choose another place", message)
    assert (place.folder / "taken").read_text() == "kept"


def test_a_closed_pipe(place: Place) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = place.detr("set", *MODEL, "--quiet", stdout=writing)
    os.close(writing)
    assert (run.code, run.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "detr: nowhere: no such file or folder"),
        (
            ["empty"],
            "detr: empty contains no dataset: no COCO JSON file (annotations.json, …), YOLO data.yaml or classes.t",
        ),
        (["odd/two\nlines.json"], r"detr: odd/two\nlines.json is not a COCO dataset: it has no list of images or"),
        (["odd/nan.json"], "detr: odd/nan.json is not a COCO dataset: an entry of its annotations is invalid"),
        (["splits"], "detr: splits has no annotations of a val split, only others such as train/annotations.json"),
        (["splits", "--split", "train"], "detr: splits/train/annotations.json: 1 images are missing, such as splits"),
        (["set", "--split", "dev"], "'dev'"),
        (["splits", "--split", "test"], "detr: splits has no annotations of a test split, only others such as train"),
        (["set", "--save-predictions", "empty"], "'--save-predictions'"),
        ([], "Missing argument"),
    ],
    ids=lambda value: " ".join(value).replace("\n", " ") if isinstance(value, list) else "",
)
def test_errors_are_one_line(place: Place, arguments: Sequence[str], message: str) -> None:
    (place.folder / "empty").mkdir(exist_ok=True)
    write_json(place.folder / "odd" / "two\nlines.json", [])
    write_text(
        place.folder / "odd" / "nan.json",
        '{"images": [], "categories": [], "annotations": [{"bbox": [0, 0, 1, 1], "image_id": NaN, "category_id": 1}]}',
    )
    write_json(place.folder / "splits" / "train" / "annotations.json", as_coco({"a.jpg": []}, ["cat"]))
    run = place.detr(*arguments, *MODEL)
    assert run.code == 2
    assert run.stdout == ""
    assert message in run.messages[-1]
    assert "Traceback" not in run.stderr
