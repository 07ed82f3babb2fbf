"""Export to int8: a file that is smaller and faster on CPUs, compared with float32 before it is written."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.load import LoadedModel
from ..datasets import Dataset, Example
from ..detections import DetectionFilter, Detections
from ..detector import Detector, keep_detections, load
from ..errors import ImageError, Int8LossError, UsageError
from ..evaluation.average_precision import ImagePredictions, average_precision, dataset_labels
from ..files import atomic_file
from ..images.decode import open_image_file
from ..inference.exported import ExportedBackend
from ..models.boxes import box_iou, xyxy_to_cxcywh
from . import DEFAULT_OPSET
from .onnx import trace
from .quantization import MAX_OPSET, quantize

Item = TypeVar("Item")
OnProgress = Callable[[int, int, str], None]

MIN_IMAGES = 20
MAX_CALIBRATION_IMAGES = 300
"""More hardly change the ranges of values that are found."""
MAX_COMPARED_IMAGES = 1000
CONFIDENT, SAME_OBJECT = 0.5, 0.5
"""Least score of detections that int8 should find, too, and least IoU of their boxes."""


@dataclass(frozen=True)
class Int8Result:
    """Summary of an int8 file.

    Attributes:
        path: of the file.
        bytes: its size.
        float_bytes: that of the float32 file.
        calibrated: number of images that the ranges of values were found with.
        compared: number of other images, on which detections were compared.
        expected: number of detections in float32 that score at least `CONFIDENT`.
        found: number of these that int8 finds, too: of the same class, with an IoU of at least `SAME_OBJECT`.
        score_difference: mean difference of these detections' scores.
        ap: AP of float32 and of int8, 0…1, or None without true objects.
    """

    path: Path
    bytes: int
    float_bytes: int
    calibrated: int
    compared: int
    expected: int
    found: int
    score_difference: float
    ap: tuple[float, float] | None


def export_int8(
    model: LoadedModel,
    path: Path,
    images: Dataset,
    *,
    source: str,
    license: str = "",
    batch_size: int | None = None,
    opset: int = DEFAULT_OPSET,
    max_ap_loss: float = 0.02,
    on_unreadable: Callable[[ImageError], None] = lambda _: None,
    on_progress: OnProgress = lambda *_: None,
) -> Int8Result:
    """Export a network that multiplies in int8 where it takes most of the time; see `export_onnx` for the file.

    With half of the images, but no more than `MAX_CALIBRATION_IMAGES`, the ranges of values are found; on others, at
    most `MAX_COMPARED_IMAGES`, detections in int8 are compared with those in float32, both in ONNX Runtime.

    Args:
        model: is left unchanged.
        path: of the file.
        images: typical ones; AP is measured if they have objects.
        source: of the weights, for the metadata.
        license: of the weights, for the metadata.
        batch_size: images per batch, or None for a dynamic number.
        opset: version of the operator set.
        max_ap_loss: largest loss of AP, 0…1.
        on_unreadable: called for each image that cannot be read, which is left out.
        on_progress: called with the number of images done, that of all, and what is being done.

    Raises:
        UsageError: there are too few images, or the version of the operator set is not supported.
        MissingClassError: the images have objects of classes that the model lacks.
        Int8LossError: int8 loses too much AP.
        ExportSizeError: the model is too large for an ONNX file.
        ExportError: the predictions in ONNX Runtime differ from those in PyTorch, even in float32.
        OutputError: the file cannot be written.
    """
    if opset > MAX_OPSET:
        raise UsageError(f"opset must be at most {MAX_OPSET} for int8, not {opset}")
    if len(images.examples) < MIN_IMAGES:
        raise UsageError(f"{images.name} has {len(images.examples)} images; int8 needs {MIN_IMAGES}, better hundreds")
    labels = dataset_labels(model.class_names, images) if _has_objects(images) else None
    calibration, others = split(images.examples)
    with atomic_file(path) as file, tempfile.TemporaryDirectory() as folder:
        graph = trace(
            model,
            source=source,
            license=license,
            postprocess=True,
            batch_size=batch_size,
            precision="fp32",
            opset=opset,
        ).proto
        float_file, int8_file = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        float_file.write_bytes(graph.SerializeToString())
        float_detector = load(float_file, device="cpu", engine="onnxruntime")
        inputs = CalibrationInputs(float_detector, calibration, on_unreadable, on_progress)
        exact = dict(_detections(float_detector, others, "detecting in float32", on_unreadable, on_progress))
        if len(exact) < MIN_IMAGES // 2 or next(iter(inputs), None) is None:
            raise UsageError(f"{images.name} has too few images that can be read")
        content = quantize(graph, inputs, len(calibration)).SerializeToString()
        int8_file.write_bytes(content)
        int8_detector = load(int8_file, device="cpu", engine="onnxruntime")
        rounded = dict(_detections(int8_detector, list(exact), "detecting in int8", on_unreadable, on_progress))
        found, differences = agreement([exact[one] for one in rounded], list(rounded.values()))
        ap, dataset = None, replace(images, examples=tuple(rounded))
        if labels is not None and _has_objects(dataset):
            before = _average_precision(dataset, [exact[one] for one in rounded], labels)
            after = _average_precision(dataset, [*rounded.values()], labels)
            ap = before, after
            if before - after > max_ap_loss:
                raise Int8LossError(
                    f"int8 loses {100 * (before - after):.1f} points of AP on {len(rounded)} images of {images.name} "
                    f"({100 * before:.1f} → {100 * after:.1f}), more than {100 * max_ap_loss:g}; nothing was written"
                )
        file.write(content)
    return Int8Result(
        path=path,
        bytes=len(content),
        float_bytes=graph.ByteSize(),
        calibrated=len(inputs.readable),
        compared=len(rounded),
        expected=len(found),
        found=int(found.sum()),
        score_difference=float(differences.mean()) if len(differences) else 0.0,
        ap=ap,
    )


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Images to calibrate with, and others to compare on; both are spread evenly over all."""
    calibration = _spread(examples, min(len(examples) // 2, MAX_CALIBRATION_IMAGES))
    taken = set(map(id, calibration))
    return calibration, _spread([one for one in examples if id(one) not in taken], MAX_COMPARED_IMAGES)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    return [items[position * len(items) // count] for position in range(count)] if count < len(items) else [*items]


class CalibrationInputs:
    """Inputs of the network for each image, read anew each time that one iterates over them.

    Attributes:
        readable: the images that could be read.
    """

    def __init__(
        self,
        detector: Detector,
        examples: Sequence[Example],
        on_unreadable: Callable[[ImageError], None],
        on_progress: OnProgress,
    ) -> None:
        assert isinstance(detector.backend, ExportedBackend)
        self._detector, self._backend = detector, detector.backend
        self._on_unreadable, self._on_progress = on_unreadable, on_progress
        self.readable = [*examples]

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for done, example in enumerate([*self.readable], 1):
            try:
                image = open_image_file(example.path).decode().image
            except ImageError as error:
                self._on_unreadable(error)
                self.readable.remove(example)
                continue
            pixels, size = self._detector.resized(image), (image.height, image.width)
            count = self._backend.batch_size
            yield self._backend.inputs([pixels] * count, [size] * count)
            self._on_progress(done, len(self.readable), "calibrating")


def _has_objects(dataset: Dataset) -> bool:
    return any(len(one.labels) for one in dataset.examples)


def _detections(
    detector: Detector,
    examples: Sequence[Example],
    task: str,
    on_unreadable: Callable[[ImageError], None],
    on_progress: OnProgress,
) -> Iterator[tuple[Example, Detections]]:
    found = detector.stream(
        examples,
        DetectionFilter(threshold=0),
        open_image=lambda example: open_image_file(example.path),
        write=keep_detections,
    )
    for done, (example, detections) in enumerate(zip(examples, found, strict=True), 1):
        if isinstance(detections, ImageError):
            on_unreadable(detections)
        else:
            yield example, detections
        on_progress(done, len(examples), task)


def agreement(
    expected: Sequence[Detections], found: Sequence[Detections]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Compare detections image by image.

    Returns:
        For each confident detection that is expected, whether it is found; and for each found one, the difference of
        its scores.
    """
    matched, differences = [np.empty(0, bool)], [np.empty(0, np.float32)]
    for one, other in zip(expected, found, strict=True):
        confident = one.scores >= CONFIDENT
        boxes, scores, labels = one.boxes[confident], one.scores[confident], one.labels[confident]
        centered, others = (xyxy_to_cxcywh(torch.from_numpy(values)) for values in (boxes, other.boxes))
        overlaps = box_iou(centered[:, None], others).iou.numpy()
        same = (overlaps >= SAME_OBJECT) & (labels[:, None] == other.labels)
        matched.append(same.any(1))
        best = np.where(same, other.scores, 0).max(1, initial=0)
        differences.append(np.abs(best - scores)[matched[-1]])
    return np.concatenate(matched), np.concatenate(differences)


def _average_precision(dataset: Dataset, detections: Sequence[Detections], labels: NDArray[np.int64]) -> float:
    predictions = []
    for one in detections:
        known = labels[one.labels] >= 0
        predictions.append(ImagePredictions(one.boxes[known], one.scores[known], labels[one.labels][known]))
    return average_precision(dataset, predictions).ap
