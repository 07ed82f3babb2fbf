"""What formats write: the outcome of each image, and the settings of the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ImageError
from ..images.sources import CocoId, ImageReference

if TYPE_CHECKING:
    from ..detections import Detections

IndexedReference: TypeAlias = tuple[int, ImageReference]
"""Position of an image among all images of all shards, from 0, and the image."""


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        label_id: class id.
        label: class name.
        score: 0…1, to six digits.
        box: x1, y1, x2, y2 in pixels of the upright image, inside it, to four digits.
    """

    label_id: int
    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageResult:
    """Detections of one image.

    Attributes:
        path: path or URL as the user would name it.
        relative: path of the image's outputs below the output folder, with `/` between folders.
        width: width of the upright image, in pixels.
        height: height of the upright image, in pixels.
        model: name of the model.
        detections: best first.
        image_id: id in a COCO file, or None.
    """

    path: str
    relative: str
    width: int
    height: int
    model: str
    detections: tuple[Detection, ...]
    image_id: CocoId | None = None

    @classmethod
    def from_detections(cls, reference: ImageReference, model: str, detections: "Detections") -> "ImageResult":
        """Result of a model's detections in the image of a reference, rounded."""
        columns = (detections.labels.tolist(), detections.names, detections.scores.tolist(), detections.boxes.tolist())
        rounded = tuple(
            Detection(label, name, round(score, 6), (round(x1, 4), round(y1, 4), round(x2, 4), round(y2, 4)))
            for label, name, score, (x1, y1, x2, y2) in zip(*columns, strict=True)
        )
        relative, size = reference.relative.as_posix(), (detections.width, detections.height)
        return cls(reference.path, relative, *size, model, rounded, reference.image_id)

    @classmethod
    def from_record(cls, record: dict[str, Any], relative: str, image_id: CocoId | None = None) -> "ImageResult":
        """Result that `as_record` turned into plain data."""
        detections = tuple(
            Detection(one["label_id"], one["label"], one["score"], (*one["box"],)) for one in record["detections"]
        )
        size = record["size"]
        return cls(record["path"], relative, size["width"], size["height"], record["model"], detections, image_id)

    def as_record(self) -> dict[str, Any]:
        """Plain data for JSON: path, size, model, and detections."""
        return {
            "path": self.path,
            "size": {"width": self.width, "height": self.height},
            "model": self.model,
            "detections": [{**vars(one), "box": list(one.box)} for one in self.detections],
        }


@dataclass(frozen=True)
class Failure:
    """Reason why an image has no result.

    Attributes:
        path: path or URL as the user would name it.
        kind: what went wrong, in a word or two.
        reason: the whole message.
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of one image of a run.

    Attributes:
        index: position as in `IndexedReference`.
        result: detections, or why there are none.
        annotated: path of the annotated image, if one was written.
        error: class of the error behind a failure, if it happened in this process.
    """

    index: int
    result: ImageResult | Failure
    annotated: Path | None = None
    error: type[ImageError] | None = None

    @classmethod
    def failed(cls, index: int, path: str, error: ImageError) -> "Outcome":
        """Outcome of an image that an error prevented."""
        return cls(index, Failure(path, error.kind, str(error)), error=type(error))


@dataclass(frozen=True)
class OutputSettings:
    """What a format needs to know besides the images.

    Attributes:
        class_names: name of each label of the model.
        folder: the output folder.
        image_root: URL that image paths are appended to, or "" to write paths as they are.
        category_ids: COCO category id of each label, None for a label without one; or None to number the classes.
    """

    class_names: tuple[str, ...]
    folder: Path = Path()
    image_root: str = ""
    category_ids: tuple[CocoId | None, ...] | None = None
