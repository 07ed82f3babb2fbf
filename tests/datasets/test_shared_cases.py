"""Small datasets from other tools, and with errors that users met; skipped where they are not available."""

from pathlib import Path

import pytest

import detrcli
from detrcli.datasets import read_dataset
from detrcli.datasets.annotations import align_classes
from detrcli.detector import Detector
from detrcli.errors import DatasetError
from detrcli.evaluation.average_precision import evaluate

from ..places import SHARED

CASES = SHARED / "cases" / "datasets"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="shared cases are not available")

FOUND = """coco-backslash coco-empty-bbox coco-roboflow-root coco-roboflow-root-same-name coco-size-zero coco-string-ids
cross-dm-coco cross-dm-yolo cross-sv-yolo cvat-coco ls-yolo yolo-dup yolo-flat yolo-pose-17x3 yolo-pose-4x2
yolo-track""".split()
"""Datasets whose labels are detections of the demo model."""


@pytest.fixture(scope="module")
def demo() -> Detector:
    return detrcli.load("demo", device="cpu", precision="fp32")


@pytest.mark.parametrize("case", FOUND)
def test_demo_model_finds_the_labeled_objects(demo: Detector, case: str) -> None:
    figures, _ = evaluate(demo, read_dataset(CASES / case, "val"))
    assert figures.ap > 0.995


def test_labels_of_whole_pixels(demo: Detector) -> None:
    figures, _ = evaluate(demo, read_dataset(CASES / "voc2", "val"))
    assert figures.ap50 > 0.995
    assert figures.ap > 0.9


def test_image_annotated_unrotated(demo: Detector) -> None:
    with pytest.raises(DatasetError, match="1 images are rotated by their EXIF data"):
        read_dataset(CASES / "coco-exif", "val")


@pytest.mark.parametrize("case", ["train-order", "train-extra-val-class"])
def test_splits_with_other_categories(demo: Detector, case: str) -> None:
    train, val = (read_dataset(CASES / case, split) for split in ("train", "val"))
    assert train.classes != val.classes
    aligned = align_classes(val, train.classes)
    figures, _ = evaluate(demo, aligned)
    assert figures.ap > 0.995
    skipped = [line for line in aligned.problems if "objects of other classes" in line]
    assert len(skipped) == (case == "train-extra-val-class")


def test_classes_unknown_to_the_model(demo: Detector) -> None:
    dataset = read_dataset(CASES / "lm2", "val")
    assert [len(example.labels) for example in dataset.examples] == [6, 6]
    with pytest.raises(DatasetError, match="the model has no class 'Größe: 交通 <b>&'"):
        evaluate(demo, dataset)


def test_manual_labels() -> None:
    dataset = read_dataset(CASES / "inplace-before", "val")
    assert dataset.classes == ("myclass",)
    assert [len(example.labels) for example in dataset.examples] == [1, 0]


def test_all_cases_are_tested() -> None:
    others = {"lm2", "voc2", "coco-exif", "train-order", "train-extra-val-class", "inplace-before"}
    assert {path.name for path in Path(CASES).iterdir()} == {*FOUND, *others}
