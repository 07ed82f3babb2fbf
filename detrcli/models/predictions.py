"""What every network of this package answers."""

from typing import NamedTuple

from torch import Tensor

from .boxes import at_least_float32


class Predictions(NamedTuple):
    """One answer for each object query.

    Attributes:
        logits: (B, Q, C) class scores before softmax or sigmoid.
        boxes: (B, Q, 4) as cx, cy, w, h relative to the image; DETR's are in 0…1, LW-DETR's may reach beyond.
    """

    logits: Tensor
    boxes: Tensor

    def at_least_float32(self) -> "Predictions":
        """The same, in float32 at least."""
        return Predictions(*(part.to(at_least_float32(part.dtype)) for part in self))
