"""COCO's average precision of a detector on a labeled dataset."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..classes import UNUSED, matching_labels
from ..datasets import Dataset, Example
from ..detections import DetectionFilter
from ..detector import Detector, keep_detections
from ..errors import ImageError, MissingClassError
from ..images.decode import open_image_file
from ..images.sources import CocoId
from ..inference.batch_size import BatchSize


class ImagePredictions(NamedTuple):
    """Predictions on one image of a dataset.

    Attributes:
        boxes: (K, 4) float32 as x1, y1, x2, y2 in pixels.
        scores: (K,) float32.
        labels: (K,) int64, indices into the dataset's classes.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """COCO's metrics, each 0…1, or NaN if the dataset has no object to measure it on.

    Attributes:
        ap: average precision over IoU 0.50:0.95 and all classes.
        ap50: AP at IoU 0.50.
        ap75: AP at IoU 0.75.
        ap_small: AP of objects below 32 × 32 pixels.
        ap_medium: AP of objects from there to 96 × 96 pixels.
        ap_large: AP of larger objects.
        ar: average recall with up to 100 detections per image and class.
        classes: AP and AP50 of each class.
        images: number of images.
        objects: number of objects, without crowds.
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


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Evaluation, list[ImagePredictions]]:
    """Evaluate a detector on a dataset.

    Args:
        detector: detector; its classes are matched with the dataset's by name.
        dataset: dataset with the true objects.
        batch_size: largest number of images per batch.
        workers: threads that read images, or None for one per core; it does not affect the result.
        on_progress: called after each image with the number of images done.

    Returns:
        The metrics, and the predictions on each image.

    Raises:
        MissingClassError: objects of the dataset have classes that the detector lacks.
        ImageError: an image cannot be read.
    """
    labels = dataset_labels(detector.class_names, dataset)
    detection_filter = DetectionFilter(threshold=0, labels=frozenset(np.flatnonzero(labels >= 0).tolist()))
    predictions: list[ImagePredictions] = []
    for found in detector.stream(
        dataset.examples,
        detection_filter,
        open_image=lambda example: open_image_file(example.path),
        write=keep_detections,
        batch_size=BatchSize(batch_size),
        workers=workers,
    ):
        if isinstance(found, ImageError):
            raise found
        predictions.append(ImagePredictions(found.boxes, found.scores, labels[found.labels]))
        on_progress(len(predictions))
    return average_precision(dataset, predictions), predictions


def dataset_labels(names: Sequence[str], dataset: Dataset) -> NDArray[np.int64]:
    """Return the dataset's label for each label of the detector, or -1.

    Args:
        names: class names of the detector.
        dataset: dataset with the true objects.

    Raises:
        MissingClassError: objects of the dataset have classes that the detector lacks.
    """
    matches = matching_labels(names, dataset.classes)
    labels = np.array([match[0] if match else -1 for match in matches], dtype=np.int64)
    needed = {int(label) for example in dataset.examples for label in example.labels}
    missing = [dataset.classes[label] for label in sorted(needed.difference(labels.tolist()))]
    if missing:
        names = [name for name in names if name != UNUSED]
        raise MissingClassError(
            f"{dataset.name}: the model has no class {' or '.join(map(repr, missing[:3]))}"
            f"{' and others' if len(missing) > 3 else ''}; its classes are {', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}"
        )
    return labels


def average_precision(dataset: Dataset, predictions: Sequence[ImagePredictions]) -> Evaluation:
    """Compute COCO's metrics of the predictions on each image of a dataset, with COCO's own code."""
    from pycocotools.cocoeval import COCOeval

    coco_eval = COCOeval(iouType="bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        num_classes = len(dataset.classes)
        objects = _by_class([example.labels for example in dataset.examples], num_classes)
        detections = _by_class([one.labels for one in predictions], num_classes)
        by_class = [
            _evaluate_class(*_as_coco(dataset, predictions, label, *positions))
            for label, positions in enumerate(zip(objects, detections, strict=True))
        ]
        precision = np.concatenate([one for one, _ in by_class], axis=2)
        coco_eval.eval = {"precision": precision, "recall": np.concatenate([one for _, one in by_class], axis=1)}
        coco_eval.summarize()
    classes = {
        name: (_mean(precision[:, :, label, 0, -1]), _mean(precision[0, :, label, 0, -1]))
        for label, name in enumerate(dataset.classes)
    }
    metrics = [float(value) if value >= 0 else float("nan") for value in coco_eval.stats]
    ap, ap50, ap75, small, medium, large, _, _, recall, *_ = metrics
    images, count = len(dataset.examples), sum(int((~example.crowd).sum()) for example in dataset.examples)
    return Evaluation(ap, ap50, ap75, small, medium, large, recall, classes, images, count)


def coco_results(dataset: Dataset, predictions: Sequence[ImagePredictions]) -> list[dict[str, Any]]:
    """Return the predictions in COCO's results format, with the dataset's image and category ids."""
    return [
        _result(example.image_id, dataset.category_ids[label], box, score)
        for example, one in zip(dataset.examples, predictions, strict=True)
        for box, score, label in zip(*one, strict=True)
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
    """Yield the boxes of each class as pairs of image and index in the image, without a pass per class."""
    starts = np.cumsum([0, *map(len, labels)])
    all_labels = np.concatenate([*labels, np.empty(0, np.int64)])
    order = np.argsort(all_labels, kind="stable")
    bounds = np.searchsorted(all_labels, np.arange(classes + 1), sorter=order)
    for start, end in pairwise(bounds):
        images = np.searchsorted(starts, order[start:end], side="right") - 1
        yield list(zip(images.tolist(), (order[start:end] - starts[images]).tolist(), strict=True))


def _evaluate_class(truth: dict[str, Any], found: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evaluate one class by itself, since COCOeval needs more than two kilobytes per detection.

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
    coco_eval = COCOeval(*sides, "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    return coco_eval.eval["precision"], coco_eval.eval["recall"]


def _as_coco(
    dataset: Dataset,
    predictions: Sequence[ImagePredictions],
    label: int,
    objects: list[tuple[int, int]],
    detections: list[tuple[int, int]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the objects and detections of a class, given by image and index, as COCO datasets of their images."""
    examples, category = dataset.examples, dataset.category_ids[label]
    images = [{"id": image} for image in sorted({image for image, _ in (*objects, *detections)})]
    shared = {"images": images, "categories": [{"id": category}]}
    annotations = [
        {"id": number, **_object(examples[image], image, category, index)}
        for number, (image, index) in enumerate(objects, start=1)
    ]
    results = [
        {"id": number, **_detection(predictions[image], image, category, index)}
        for number, (image, index) in enumerate(detections, start=1)
    ]
    return {**shared, "annotations": annotations}, {**shared, "annotations": results}


def _object(example: Example, image: int, category: int, index: int) -> dict[str, Any]:
    x1, y1, x2, y2 = example.boxes[index]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "area": float(example.areas[index]),
        "iscrowd": int(example.crowd[index]),
    }


def _detection(predictions: ImagePredictions, image: int, category: int, index: int) -> dict[str, Any]:
    result = _result(image, category, predictions.boxes[index], predictions.scores[index])
    return {**result, "area": result["bbox"][2] * result["bbox"][3]}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
