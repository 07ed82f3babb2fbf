"""How good a detector is on a labelled dataset: COCO's average precision."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes import UNUSED, matching_labels
from ..datasets import Dataset, Example
from ..detections import DetectionFilter
from ..detector import Detector
from ..errors import DatasetError, ImageError
from ..images.decode import ImageFile, open_image_file
from ..images.sources import CocoId
from ..inference.batch_size import BatchSize


@dataclass(frozen=True)
class Evaluation:
    """COCO's figures, each 0…1, or NaN where the dataset has no such object.

    Attributes:
        ap: average precision over IoU 0.50:0.95 and all classes.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: of objects below 32 × 32 pixels.
        ap_medium: of those below 96 × 96.
        ap_large: of the rest.
        ar: average recall with 100 detections of a class in an image.
        classes: AP and AP50 of each class.
        images: how many there were.
        objects: how many objects they hold.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    classes: Mapping[str, tuple[float, float]]
    images: int
    objects: int


Answer = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (K, 4) as x1, y1, x2, y2 in pixels, scores (K,), and labels (K,) as indices into the dataset's classes."""


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Evaluation, list[Answer]]:
    """Run a detector over a dataset, and judge it.

    Args:
        detector: its classes are found in the dataset by their names.
        dataset: what should be found.
        batch_size: the most images to run at once.
        workers: threads that read images, or None for as many as there are cores; the figures are the same.
        on_progress: is told after each image how many are done.

    Returns:
        The figures, and what was detected in each image.

    Raises:
        DatasetError: the detector lacks classes of the dataset's objects.
        ImageError: an image cannot be read.
    """
    translation = _labels(detector.class_names, dataset)
    wanted = DetectionFilter(threshold=0, labels=frozenset(np.flatnonzero(translation >= 0).tolist()))
    answers: list[Answer] = []
    most = BatchSize(batch_size)
    for outcome in detector.stream(
        dataset.examples, wanted, open_image=_open, then=lambda outcome: outcome, batch_size=most, workers=workers
    ):
        if isinstance(outcome.result, ImageError):
            raise outcome.result
        found = outcome.result
        answers.append((found.boxes, found.scores, translation[found.labels]))
        on_progress(len(answers))
    return average_precision(dataset, answers), answers


def _open(example: Example) -> ImageFile:
    return open_image_file(example.path)


def _labels(names: Sequence[str], dataset: Dataset) -> NDArray[np.int64]:
    """The dataset's label of each label of the detector, or -1."""
    labels = np.array([found[0] if found else -1 for found in matching_labels(names, dataset.classes)], dtype=np.int64)
    needed = {int(label) for example in dataset.examples for label in example.labels}
    missing = [dataset.classes[label] for label in sorted(needed.difference(labels.tolist()))]
    if missing:
        known = ", ".join([name for name in names if name != UNUSED][:5])
        raise DatasetError(
            f"{dataset.name}: the model has no class {' or '.join(map(repr, missing[:3]))}"
            f"{' and others' if len(missing) > 3 else ''} (it knows {known}, …); train one that has, or rename them"
        )
    return labels


def average_precision(dataset: Dataset, answers: Sequence[Answer]) -> Evaluation:
    """Judge what was detected in each image of a dataset, with COCO's own evaluation."""
    from pycocotools.cocoeval import COCOeval

    judge = COCOeval(iouType="bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        real = _by_class([example.labels for example in dataset.examples], len(dataset.classes))
        claimed = _by_class([labels for _, _, labels in answers], len(dataset.classes))
        judged = [
            _judged(*_as_coco(dataset, answers, label, *places))
            for label, places in enumerate(zip(real, claimed, strict=True))
        ]
        precision = np.concatenate(
            [one for one, _ in judged], axis=2
        )  # (IoU thresholds, recalls, classes, sizes, limits)
        judge.eval = {"precision": precision, "recall": np.concatenate([one for _, one in judged], axis=1)}
        judge.summarize()
    per_class = {
        name: (_mean(precision[:, :, label, 0, -1]), _mean(precision[0, :, label, 0, -1]))
        for label, name in enumerate(dataset.classes)
    }
    figures = [float(value) if value >= 0 else float("nan") for value in judge.stats]
    ap, ap50, ap75, small, medium, large, _, _, recall, *_ = figures
    return Evaluation(
        ap,
        ap50,
        ap75,
        small,
        medium,
        large,
        recall,
        classes=per_class,
        images=len(dataset.examples),
        objects=sum(int((~example.crowd).sum()) for example in dataset.examples),
    )


def as_results(dataset: Dataset, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """What was detected, in COCO's results form, with the dataset's own ids."""
    return [
        _result(example.image_id, dataset.category_ids[label], box, score)
        for example, (boxes, scores, labels) in zip(dataset.examples, answers, strict=True)
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]


def _result(image: CocoId, category: int, box: NDArray[np.float32], score: np.float32) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [round(float(value), 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "score": float(score),
    }


def _by_class(labels: Sequence[NDArray[np.int64]], classes: int) -> Iterator[list[tuple[int, int]]]:
    """Where the boxes of each class are in turn: their images, and their places there."""
    starts = np.cumsum([0, *map(len, labels)])
    together = np.concatenate([*labels, np.empty(0, np.int64)])
    order = np.argsort(together, kind="stable")
    ends = np.searchsorted(together, np.arange(classes + 1), sorter=order)
    for at, end in pairwise(ends):
        images = np.searchsorted(starts, order[at:end], side="right") - 1
        yield list(zip(images.tolist(), (order[at:end] - starts[images]).tolist(), strict=True))


def _judged(truth: dict[str, Any], found: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Judge a class by itself, for COCOeval holds more than two kilobytes for each detection.

    Returns:
        Precision (IoU thresholds, recalls, 1, sizes, limits) and recall (IoU thresholds, 1, sizes, limits), -1 where
        the dataset has no such object.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = COCO(), COCO()
    for side, content in zip(sides, (truth, found), strict=True):
        side.dataset = content
        side.createIndex()
    judge = COCOeval(*sides, "bbox")
    judge.evaluate()
    judge.accumulate()
    return judge.eval["precision"], judge.eval["recall"]


def _as_coco(
    dataset: Dataset, answers: Sequence[Answer], label: int, real: list[tuple[int, int]], claimed: list[tuple[int, int]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A class's objects and detections, and the images that have any of them.

    Args:
        dataset: what should be found.
        answers: what was.
        label: the class.
        real: image and place of each object.
        claimed: the same of each detection.
    """
    examples, category = dataset.examples, dataset.category_ids[label]
    images = [{"id": image} for image in sorted({image for image, _ in (*real, *claimed)})]
    objects = [
        {"id": number, **_object(examples[image], image, category, place)}
        for number, (image, place) in enumerate(real, start=1)
    ]
    detections = [
        {"id": number, **_detection(image, category, answers[image], place)}
        for number, (image, place) in enumerate(claimed, start=1)
    ]
    shared = {"images": images, "categories": [{"id": category}]}
    return {**shared, "annotations": objects}, {**shared, "annotations": detections}


def _object(example: Example, image: int, category: int, place: int) -> dict[str, Any]:
    x1, y1, x2, y2 = example.boxes[place]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "area": float(example.areas[place]),
        "iscrowd": int(example.crowd[place]),
    }


def _detection(image: int, category: int, answer: Answer, place: int) -> dict[str, Any]:
    boxes, scores, _ = answer
    result = _result(image, category, boxes[place], scores[place])
    return {**result, "area": result["bbox"][2] * result["bbox"][3]}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
