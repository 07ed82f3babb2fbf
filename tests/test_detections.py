"""Selection of a network's detections, which classes a name means, and detections as plain data."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import supervision
from hypothesis import given
from hypothesis import strategies as st

from detrcli.detections import DetectionFilter, Detections, labels_of
from detrcli.errors import ClassError
from detrcli.images.sources import ImageReference
from detrcli.outputs.record import ImageResult

NAMES = ("N/A", "person", "Traffic Light", "cat", "person")
RawDetection = tuple[tuple[float, float, float, float], float, int]


def selected(detection_filter: DetectionFilter, *raw: RawDetection, size: tuple[int, int] = (100, 50)) -> Detections:
    return detection_filter.select(
        np.array([box for box, _, _ in raw], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in raw], np.float32),
        np.array([label for _, _, label in raw], np.int64),
        NAMES,
        size,
    )


def scored(*scores: float) -> list[RawDetection]:
    return [((index, 0, index + 1, 1), score, 1) for index, score in enumerate(scores)]


def test_scores_must_lie_above_the_threshold() -> None:
    assert selected(DetectionFilter(0.5), *scored(0.5, 0.75, 0.25)).scores.tolist() == [0.75]
    assert len(selected(DetectionFilter(0.9), *scored(0.9))) == 0
    assert len(selected(DetectionFilter(0.0), *scored(0.0, 1e-6))) == 1
    assert len(selected(DetectionFilter(1.0), *scored(1.0))) == 0


def test_only_the_chosen_classes() -> None:
    raw: list[RawDetection] = [((0, 0, 1, 1), 0.9, label) for label in (0, 1, 2, 3, 4)]
    assert selected(DetectionFilter(labels=frozenset({4, 2})), *raw).names == ("Traffic Light", "person")
    assert selected(DetectionFilter(labels=None), *raw).labels.tolist() == [1, 2, 3, 4]


def test_unused_labels_are_never_detections() -> None:
    raw: list[RawDetection] = [((0, 0, 1, 1), 0.9, 0), ((0, 0, 1, 1), 0.8, 1), ((0, 0, 1, 1), 0.7, 2)]
    for detection_filter in (
        DetectionFilter(),
        DetectionFilter(labels=frozenset({0, 1}), limit=1),
        DetectionFilter(limit=1),
    ):
        assert selected(detection_filter, *raw).labels[0] == 1
    assert len(selected(DetectionFilter(labels=frozenset()), *raw)) == 0


def test_the_limit_keeps_the_best() -> None:
    raw = scored(0.6, 0.9, 0.7, 0.8)
    assert selected(DetectionFilter(limit=2), *raw).boxes[:, 0].tolist() == [1, 3]
    assert len(selected(DetectionFilter(limit=9), *raw)) == 4
    assert len(selected(DetectionFilter(limit=0), *raw)) == 0


def test_ties_stay_in_the_order_of_the_network() -> None:
    found = selected(DetectionFilter(), *scored(0.75, 1.0, 0.75, 0.75, 1.0))
    assert found.boxes[:, 0].tolist() == [1, 4, 0, 2, 3]
    assert found.scores.tolist() == [1.0, 1.0, 0.75, 0.75, 0.75]


def test_boxes_are_clipped_to_the_image() -> None:
    found = selected(
        DetectionFilter(),
        ((-5, -0.5, 120, 60), 0.9, 1),
        ((10.5, 20, 30, 40), 0.8, 1),
        ((-9, 70, -3, 80), 0.7, 1),
        size=(100, 50),
    )
    assert found.boxes.tolist() == [[0, 0, 100, 50], [10.5, 20, 30, 40], [0, 50, 0, 50]]
    assert (found.width, found.height) == (100, 50)


def test_no_detections() -> None:
    found = selected(DetectionFilter())
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert (
        ImageResult.from_detections(ImageReference("a.jpg", Path("a.jpg")), "m", found).as_record()["detections"] == []
    )


@given(
    scores=st.lists(st.floats(0, 1, width=32), max_size=30),
    threshold=st.floats(0, 1, width=32),
    limit=st.none() | st.integers(0, 9),
)
def test_selection_keeps_the_best_above_the_threshold(scores: list[float], threshold: float, limit: int | None) -> None:
    found = selected(DetectionFilter(threshold, limit=limit), *scored(*scores))
    assert found.scores.tolist() == sorted((score for score in scores if score > threshold), reverse=True)[:limit]
    for box, score in zip(found.boxes, found.scores, strict=True):
        assert scores[int(box[0])] == score


def test_class_names_ignore_case() -> None:
    assert labels_of(["CAT", " traffic LIGHT"], NAMES) == {2, 3}
    assert labels_of([], NAMES) == frozenset()


def test_a_name_of_several_classes_means_all_of_them() -> None:
    assert labels_of(["person"], NAMES) == {1, 4}
    assert labels_of(["DOG"], ("Dog", "cat", "dog")) == {0, 2}


def test_an_unknown_name_lists_similar_ones() -> None:
    with pytest.raises(ClassError, match=r"no class 'trafic light'; did you mean 'Traffic Light'\?"):
        labels_of(["cat", "trafic light"], NAMES)


@pytest.mark.parametrize("class_names", [NAMES, ("cat",), ("N/A", "cat")])
def test_a_name_without_similar_ones_lists_some(class_names: tuple[str, ...]) -> None:
    with pytest.raises(ClassError, match="no class 'zzzzzz'") as caught:
        labels_of(["zzzzzz"], class_names)
    assert "'cat'" in str(caught.value)


@given(
    box=st.tuples(*[st.floats(0, 20_000, width=32)] * 4),
    score=st.floats(0, 1, width=32),
    label=st.integers(0, 2**40),
    name=st.text(),
    path=st.text(),
)
def test_a_record_keeps_everything_through_json(
    box: tuple[float, ...], score: float, label: int, name: str, path: str
) -> None:
    found = Detections(
        np.array([box], np.float32), np.array([score], np.float32), np.array([label], np.int64), (name,), 640, 480
    )
    whole = ImageResult.from_detections(ImageReference(path, Path("place")), "a/model", found)
    record = json.loads(json.dumps(whole.as_record(), allow_nan=False))
    assert ImageResult.from_record(record, "place") == whole
    assert list(record) == ["path", "size", "model", "detections"]
    assert (record["path"], record["size"], record["model"]) == (path, {"width": 640, "height": 480}, "a/model")
    (one,) = record["detections"]
    assert (one["label_id"], one["label"]) == (label, name)
    assert one["score"] == pytest.approx(score, abs=5.1e-7)
    assert one["box"] == pytest.approx(list(box), abs=5.1e-5)


def test_to_supervision() -> None:
    found = selected(DetectionFilter(), ((1, 2, 30, 40), 0.9, 3), ((0, 0, 1, 1), 0.8, 1))
    converted = found.to_supervision()
    assert isinstance(converted, supervision.Detections)
    np.testing.assert_array_equal(converted.xyxy, found.boxes)
    np.testing.assert_array_equal(converted.confidence, found.scores)
    assert converted.class_id.tolist() == [3, 1]
    assert converted["class_name"].tolist() == ["cat", "person"]
    assert converted[converted.confidence > 0.85]["class_name"].tolist() == ["cat"]
    converted.xyxy[:] = 0
    assert found.boxes.any()


def test_to_supervision_of_no_detections() -> None:
    converted = selected(DetectionFilter()).to_supervision()
    assert len(converted) == 0
    both = supervision.Detections.merge(
        [converted, selected(DetectionFilter(), ((0, 0, 1, 1), 0.8, 1)).to_supervision()]
    )
    assert both["class_name"].tolist() == ["person"]


def test_to_supervision_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match="pip install supervision"):
        selected(DetectionFilter()).to_supervision()
