"""Detections of one image, and the filter that selects them from a network's output."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .classes import UNUSED, matching_labels
from .errors import ClassError

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False)
class Detections:
    """Detected objects of one image, best first.

    Attributes:
        boxes: (N, 4) float32 as x1, y1, x2, y2 in pixels of the upright image, inside it.
        scores: (N,) float32, descending.
        labels: (N,) int64 class ids.
        names: N class names.
        width: width of the upright image, in pixels.
        height: height of the upright image, in pixels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.scores)

    def to_supervision(self) -> "supervision.Detections":
        """Convert to `supervision.Detections`, with the class names in `data["class_name"]`.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            text = "to_supervision needs the supervision package: pip install supervision"
            raise ModuleNotFoundError(text, name=error.name) from error

        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )


@dataclass(frozen=True)
class DetectionFilter:
    """Selection of the detections to keep; those of unused labels never are.

    Attributes:
        threshold: lowest score, exclusive, 0…1.
        labels: class ids to keep, or None for all.
        limit: largest number of detections per image, or None for all.
    """

    threshold: float = 0.5
    labels: frozenset[int] | None = None
    limit: int | None = None

    def select(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
        size: tuple[int, int],
    ) -> Detections:
        """Select an image's detections from a network's output, sort them by score and clip their boxes to the image.

        Args:
            boxes: (K, 4) as x1, y1, x2, y2 in pixels.
            scores: (K,).
            labels: (K,).
            class_names: name of each label.
            size: width and height of the image.
        """
        keep = (scores > self.threshold) & ~np.isin(labels, _unused_labels(class_names))
        if self.labels is not None:
            keep &= np.isin(labels, list(self.labels))
        chosen = np.flatnonzero(keep)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")][: self.limit]
        width, height = size
        clipped = np.clip(boxes[chosen], 0, np.array([width, height, width, height], np.float32))
        names = tuple(class_names[label] for label in labels[chosen])
        return Detections(clipped, scores[chosen], labels[chosen], names, width, height)


@lru_cache(maxsize=4)
def _unused_labels(class_names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(label for label, name in enumerate(class_names) if name == UNUSED)


def labels_of(names: list[str], class_names: tuple[str, ...]) -> frozenset[int]:
    """Class ids of class names.

    Raises:
        ClassError: no class has one of the names; the message lists similar ones.
    """
    chosen: set[int] = set()
    for name, labels in zip(names, matching_labels(names, class_names), strict=True):
        if not labels:
            raise ClassError(f"this model has no class {name!r}; {_near(name, class_names)}")
        chosen.update(labels)
    return frozenset(chosen)


def _near(name: str, class_names: tuple[str, ...]) -> str:
    import difflib

    folded = {known.casefold(): known for known in class_names}
    near = difflib.get_close_matches(name.casefold(), folded, n=5, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(repr(folded[known]) for known in near) + "?"
    known = [known for known in dict.fromkeys(class_names) if known != UNUSED]
    return f"it knows {len(known)}, such as " + ", ".join(map(repr, known[:5]))
