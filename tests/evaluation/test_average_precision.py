"""COCO's metrics by hand, by pycocotools itself, and of a detector's predictions."""

import json
import math
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detrcli import Detector
from detrcli.datasets import Dataset, Example, read_dataset
from detrcli.errors import DatasetError, ImageError
from detrcli.evaluation.average_precision import Evaluation, ImagePredictions, average_precision, coco_results, evaluate
from detrcli.images.decode import ImageFile, open_image_file
from detrcli.images.resize import Exactly, Pixels
from detrcli.inference.backend import RawDetections

from ..datasets.written import Box, as_coco, write_image, write_json

Found = tuple[int, Box, float]
"""Label, box and score."""


def example(*objects: tuple[int, Box], crowd: Sequence[int] = (), image_id: int = 1, path: Path = Path()) -> Example:
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    return Example(
        path,
        image_id,
        640,
        480,
        boxes,
        np.array([label for label, _ in objects], np.int64),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
        np.isin(np.arange(len(objects)), crowd),
    )


def dataset(*examples: Example, classes: Sequence[str] = ("cat", "dog")) -> Dataset:
    ids = tuple(10 * (label + 1) for label in range(len(classes)))
    return Dataset("pets", tuple(classes), ids, examples, ())


def predictions(*found: Found) -> ImagePredictions:
    return ImagePredictions(
        np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        np.array([score for *_, score in found], np.float32),
        np.array([label for label, *_ in found], np.int64),
    )


SMALL: Box = (10, 10, 40, 40)
MEDIUM: Box = (100, 100, 190, 190)
LARGE: Box = (300, 200, 600, 400)


def metrics(found: Evaluation) -> list[float]:
    return [found.ap, found.ap50, found.ap75, found.ap_small, found.ap_medium, found.ap_large, found.ar]


def test_everything_detected() -> None:
    everything = [(0, SMALL), (1, MEDIUM), (0, LARGE)]
    data = dataset(example(*everything), example(image_id=2), example((1, LARGE), image_id=3))
    predicted = [predictions(*((*one, 0.5) for one in everything)), predictions(), predictions((1, LARGE, 0.1))]
    found = average_precision(data, predicted)
    assert metrics(found) == pytest.approx([1] * 7)
    assert {name: pytest.approx(values) for name, values in found.classes.items()} == {"cat": (1, 1), "dog": (1, 1)}
    assert (found.images, found.objects) == (3, 4)


@pytest.mark.parametrize("found", [(), [(0, (0, 400, 50, 450), 0.9)]], ids=["nothing", "something else"])
def test_nothing_detected(found: Sequence[Found]) -> None:
    data = dataset(example((0, SMALL), (0, MEDIUM), (1, LARGE)))
    result = average_precision(data, [predictions(*found)])
    assert metrics(result) == [0] * 7
    assert result.classes == {"cat": (0, 0), "dog": (0, 0)}


def test_by_hand() -> None:
    data = dataset(example((0, SMALL), image_id=1), example((0, LARGE), image_id=2), classes=["cat"])
    found = [predictions((0, SMALL, 0.9), (0, MEDIUM, 0.8)), predictions((0, LARGE, 0.7))]
    # right, wrong, right: precision 1 up to recall 0.50, and 2/3 from 0.51 to 1.00
    expected = (51 * 1 + 50 * 2 / 3) / 101
    result = average_precision(data, found)
    assert [result.ap, result.ap50, result.ap75] == pytest.approx([expected] * 3)
    assert result.classes["cat"] == pytest.approx((expected, expected))
    assert result.ar == 1


@pytest.mark.parametrize(
    ("shift", "thresholds"),
    [(0, 10), (31, 1), (25, 3), (14, 6), (34, 0)],  # of a box 100 wide: IoU (100 - s) / (100 + s)
    ids=["1.00", "0.53", "0.60", "0.75", "0.49"],
)
def test_shifted_boxes(shift: int, thresholds: int) -> None:
    data = dataset(example((0, (200, 100, 300, 180))), classes=["cat"])
    result = average_precision(data, [predictions((0, (200 + shift, 100, 300 + shift, 180), 0.9))])
    assert result.ap == pytest.approx(thresholds / 10)
    assert result.ap50 == pytest.approx(float(thresholds >= 1))
    assert result.ap75 == pytest.approx(float(thresholds >= 6))
    assert result.classes["cat"] == pytest.approx((result.ap, result.ap50))


def test_sizes() -> None:
    data = dataset(example((0, SMALL), (0, MEDIUM)), classes=["cat"])
    result = average_precision(data, [predictions((0, SMALL, 0.9))])
    assert [result.ap_small, result.ap_medium] == pytest.approx([1, 0])
    assert math.isnan(result.ap_large)


def test_the_annotated_area_decides_the_size() -> None:
    one = example((0, LARGE))
    one.areas[:] = 500
    result = average_precision(dataset(one, classes=["cat"]), [predictions((0, LARGE, 0.9))])
    assert result.ap_small == pytest.approx(1)
    assert math.isnan(result.ap_large)


def test_crowds_count_neither_as_missed_nor_as_false() -> None:
    objects = [(0, SMALL), (0, LARGE)]
    inside: list[Found] = [(0, (300 + 20 * n, 210, 360 + 20 * n, 300), 0.9) for n in range(5)]
    found = [predictions(*inside, (0, SMALL, 0.2))]
    result = average_precision(dataset(example(*objects, crowd=[1]), classes=["cat"]), found)
    assert result.ap == pytest.approx(1)
    assert result.objects == 1
    single = average_precision(dataset(example(*objects), classes=["cat"]), found)
    assert single.ap < 0.2
    assert single.objects == 2


def test_a_class_without_objects_does_not_count() -> None:
    data = dataset(example((1, LARGE), (2, SMALL), crowd=[1]), classes=["cat", "dog", "cow"])
    result = average_precision(data, [predictions((1, LARGE, 0.9), (0, SMALL, 0.95), (2, MEDIUM, 0.99))])
    assert result.ap == pytest.approx(1)
    assert list(result.classes) == ["cat", "dog", "cow"]
    assert result.classes["dog"] == pytest.approx((1, 1))
    assert all(math.isnan(value) for name in ("cat", "cow") for value in result.classes[name])


def test_no_objects_at_all() -> None:
    assert all(map(math.isnan, metrics(average_precision(dataset(example()), [predictions((0, SMALL, 0.9))]))))
    assert all(map(math.isnan, metrics(average_precision(dataset(example()), [predictions()]))))


WIDTH, HEIGHT = 320, 240


def scattered(rng: np.random.Generator, count: int) -> list[tuple[int, Box]]:
    """Return objects of all sizes, in quarters of a pixel, which all floats represent exactly."""
    objects: list[tuple[int, Box]] = []
    for _ in range(count):
        width, height = np.exp(rng.uniform(np.log(8), np.log(220), 2)).round(2) // 0.25 * 0.25
        x, y = (rng.uniform(0, (WIDTH - width, HEIGHT - height)) // 0.25 * 0.25).tolist()
        objects.append((int(rng.integers(4)), (x, y, x + float(width), y + float(height))))
    return objects


def imperfect(rng: np.random.Generator, objects: Sequence[tuple[int, Box]]) -> ImagePredictions:
    """Return most of the objects, slightly moved, and some false ones."""
    found: list[Found] = []
    for label, (x1, y1, x2, y2) in [*objects, *scattered(rng, 5)]:
        if rng.uniform() < 0.8:
            dx, dy = rng.normal(0, 0.07, 2) * (x2 - x1, y2 - y1)
            label = label if rng.uniform() < 0.9 else int(rng.integers(4))
            found.append((label, (x1 + dx, y1 + dy, x2 + dx, y2 + dy), float(rng.uniform(0.01, 1))))
    return predictions(*found)


def test_metrics_equal_those_of_pycocotools_on_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = {f"{number}.png": scattered(rng, 12) for number in range(8)}
    for name in images:
        write_image(tmp_path / name, (WIDTH, HEIGHT))
    content = as_coco(images, ["cat", "dog", "cow", "hen"], (WIDTH, HEIGHT))
    for annotation in content["annotations"][::9]:
        annotation["iscrowd"] = 1
    for annotation in content["annotations"][::5]:
        annotation["area"] /= 3
    content["categories"].reverse()
    content["images"].reverse()
    file = write_json(tmp_path / "annotations.json", content)

    data = read_dataset(tmp_path, "val")
    predicted = [imperfect(rng, images[one.path.name]) for one in data.examples]
    ours = average_precision(data, predicted)

    results = coco_results(data, predicted)
    assert {one["image_id"] for one in results} == {image["id"] for image in content["images"]}
    assert {one["category_id"] for one in results} == {10, 20, 30, 40}
    truth = COCO(str(file))
    coco_eval = COCOeval(truth, truth.loadRes(str(write_json(tmp_path / "results.json", results))), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    np.testing.assert_allclose(metrics(ours), coco_eval.stats[[0, 1, 2, 3, 4, 5, 8]], rtol=0, atol=1e-9)
    assert 0.2 < ours.ap < ours.ap50 < 0.9
    assert len({round(value, 6) for value in metrics(ours)}) == 7
    for category, name in zip((10, 20, 30, 40), ours.classes, strict=True):
        coco_eval.params.catIds = [category]
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
        assert truth.loadCats(category)[0]["name"] == name
        assert ours.classes[name] == pytest.approx(tuple(coco_eval.stats[:2]), abs=1e-9)


def test_memory_stays_small() -> None:
    """COCOeval on all classes at once needs 19 MB for these."""
    rng = np.random.default_rng(0)
    data = dataset(*(example((0, SMALL), (1, LARGE), image_id=n) for n in range(40)), classes=[*map(str, range(8))])
    corners = rng.uniform(0, 300, (40, 300, 2)).astype(np.float32)
    predicted: list[ImagePredictions] = [
        ImagePredictions(np.hstack([one, one + 50]), rng.uniform(size=300).astype(np.float32), rng.integers(0, 8, 300))
        for one in corners
    ]
    average_precision(data, predicted)  # so that what is imported does not count
    tracemalloc.start()
    average_precision(data, predicted)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


class Traversed(tuple[Example, ...]):
    """Images that count how often they are traversed."""

    times = 0

    def __iter__(self) -> Iterator[Example]:
        self.times += 1
        return super().__iter__()


def test_images_are_not_traversed_per_class() -> None:
    def traversals(classes: int) -> int:
        images = Traversed(example((label, SMALL), image_id=label) for label in range(classes))
        data = replace(dataset(classes=[*map(str, range(classes))]), examples=images)
        found = average_precision(data, [predictions((label, SMALL, 0.9)) for label in range(classes)])
        assert found.ap == pytest.approx(1)
        return images.times

    assert traversals(20) == traversals(2)


def test_results_are_plain_data() -> None:
    data = dataset(example((0, SMALL), image_id=397133), example(image_id=5))
    results = coco_results(data, [predictions(), predictions((1, (1.00004, 2, 3.5, 4), 0.25))])
    assert json.loads(json.dumps(results)) == [
        {"image_id": 5, "category_id": 20, "bbox": [1, 2, 2.5, 2], "score": 0.25}
    ]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    average_precision(dataset(example((0, SMALL))), [predictions((0, SMALL, 0.9))])
    average_precision(dataset(example((0, SMALL))), [predictions()])
    assert capfd.readouterr() == ("", "")


class ConstantBackend:
    """Backend with the same predictions for every image."""

    description = "none"
    device_type, engine, precision = "cpu", "none", "fp32"
    batch_size = 1
    grows = False
    concurrency = 1

    def __init__(self, *found: Found) -> None:
        self.predicted = RawDetections(*predictions(*found))
        self.batches: list[int] = []

    def shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], **_: Any) -> list[RawDetections]:
        self.batches.append(len(pixels))
        return [RawDetections(self.predicted.boxes, self.predicted.scores, self.predicted.labels) for _ in pixels]


def constant_detector(names: Sequence[str], *found: Found) -> Detector:
    return Detector("constant", [ConstantBackend(*found)], tuple(names), Exactly(8, 8))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "a.png", (640, 480))


def test_classes_are_matched_by_their_names(image: Path) -> None:
    data = dataset(example((0, SMALL), (1, LARGE), path=image), classes=["Cat ", "STRASSE"])
    detector = constant_detector(["N/A", "straße", "cow", "cat"], (3, SMALL, 0.9), (1, LARGE, 0.8), (2, MEDIUM, 0.99))
    result, (found,) = evaluate(detector, data)
    assert result.ap == pytest.approx(1)
    assert list(result.classes) == ["Cat ", "STRASSE"]
    assert found[2].tolist() == [0, 1]
    np.testing.assert_array_equal(found[0], np.array([SMALL, LARGE], np.float32))


def test_classes_that_differ_only_in_case(image: Path) -> None:
    data = dataset(example((0, SMALL), (1, LARGE), path=image), classes=["Cat", "cat"])
    result, _ = evaluate(constant_detector(["cat", "Cat"], (1, SMALL, 0.9), (0, LARGE, 0.9)), data)
    assert result.ap == pytest.approx(1)


def test_classes_that_the_model_lacks(image: Path) -> None:
    data = dataset(example(*((label, SMALL) for label in range(5)), path=image), classes=["cow", *"abcd"])
    with pytest.raises(DatasetError) as caught:
        evaluate(constant_detector(["N/A", "COW", "d"]), data)
    assert str(caught.value) == "pets: the model has no class 'a' or 'b' or 'c'; its classes are COW, d"
    with pytest.raises(DatasetError, match="'a' or 'b' or 'c' and others"):
        evaluate(constant_detector(["cow"]), data)


def test_the_model_may_lack_classes_without_objects(image: Path) -> None:
    data = dataset(example((1, SMALL), path=image), classes=["animals", "cat"])  # as Roboflow exports it
    result, _ = evaluate(constant_detector(["cat"], (0, SMALL, 0.9)), data)
    assert result.ap == pytest.approx(1)
    assert math.isnan(result.classes["animals"][0])


def test_up_to_a_hundred_detections_of_each_class_count(image: Path) -> None:
    noise: list[Found] = [(0, (n, 0, n + 20, 20), 0.9 - n / 1000) for n in range(150)]
    data = dataset(example((0, LARGE), (1, SMALL), path=image))
    result, (found,) = evaluate(constant_detector(["cat", "dog"], *noise, (1, SMALL, 0.1), (0, LARGE, 0.05)), data)
    assert result.classes["dog"] == pytest.approx((1, 1))
    assert result.classes["cat"] == pytest.approx((0, 0))
    assert len(found[1]) == 152


def test_images_run_in_order_and_in_batches(tmp_path: Path) -> None:
    examples = [example((0, SMALL), image_id=n, path=write_image(tmp_path / f"{n}.png")) for n in (5, 3, 4, 1)]
    backend = ConstantBackend((0, (0, 0, 8, 8), 0.9))
    done: list[int] = []
    _, predicted = evaluate(
        Detector("constant", [backend], ("cat",), Exactly(8, 8)),
        dataset(*examples),
        batch_size=3,
        on_progress=done.append,
    )
    assert done == [1, 2, 3, 4]
    assert sum(backend.batches) == 4
    assert max(backend.batches) <= 3
    assert [one["image_id"] for one in coco_results(dataset(*examples), predicted)] == [5, 3, 4, 1]


def test_one_thread_per_core_reads_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [example((0, SMALL), image_id=n, path=write_image(tmp_path / f"{n}.png")) for n in range(6)]
    together = threading.Barrier(3, timeout=20)

    def open_together(path: Path) -> ImageFile:
        together.wait()  # until three are being read at once
        return open_image_file(path)

    monkeypatch.setattr("detrcli.evaluation.average_precision.open_image_file", open_together)
    monkeypatch.setattr("detrcli.detector.cores", lambda: 3)
    _, predicted = evaluate(constant_detector(["cat"], (0, SMALL, 0.9)), dataset(*examples))
    assert len(predicted) == 6


def test_an_image_that_cannot_be_read(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ImageError, match=str(image)):
        evaluate(constant_detector(["cat"]), dataset(example((0, SMALL), path=image)))
