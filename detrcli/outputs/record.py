"""What is written about an image that was looked at, in every format."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..detections import Detections
    from ..images.sources import CocoId


@dataclass(frozen=True)
class Found:
    """One object.

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
    """One image.

    Attributes:
        path: as the user would name it.
        relative: where its outputs belong below the output folder, with `/` between folders.
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        model: what looked at it.
        found: its objects, best first.
        image_id: its id in a COCO file, or None.
    """

    path: str
    relative: str
    width: int
    height: int
    model: str
    found: tuple[Found, ...]
    image_id: "CocoId | None" = None

    def as_record(self) -> dict[str, Any]:
        """Plain data for JSON: path, size, model, and detections."""
        return {
            "path": self.path,
            "size": {"width": self.width, "height": self.height},
            "model": self.model,
            "detections": [{**vars(one), "box": list(one.box)} for one in self.found],
        }


def labelled(
    path: str, relative: str, model: str, detections: "Detections", image_id: "CocoId | None" = None
) -> ImageResult:
    """What is written about an image's detections."""
    columns = (detections.labels.tolist(), detections.names, detections.scores.tolist(), detections.boxes.tolist())
    found = tuple(
        Found(label, name, round(score, 6), (round(x1, 4), round(y1, 4), round(x2, 4), round(y2, 4)))
        for label, name, score, (x1, y1, x2, y2) in zip(*columns, strict=True)
    )
    return ImageResult(path, relative, detections.width, detections.height, model, found, image_id)


def of_record(record: dict[str, Any], relative: str, image_id: "CocoId | None" = None) -> ImageResult:
    """What `ImageResult.as_record` made plain data of."""
    found = tuple(Found(one["label_id"], one["label"], one["score"], (*one["box"],)) for one in record["detections"])
    size = record["size"]
    return ImageResult(record["path"], relative, size["width"], size["height"], record["model"], found, image_id)
