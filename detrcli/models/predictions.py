"""Output of every network."""

from typing import NamedTuple

from torch import Tensor

from .boxes import at_least_float32


class Predictions(NamedTuple):
    """One prediction per object query.

    Attributes:
        logits: (B, Q, C) class scores before softmax (DETR) or sigmoid (LW-DETR).
        boxes: (B, Q, 4) as cx, cy, w, h relative to the image: DETR's in 0…1, LW-DETR's unbounded.
    """

    logits: Tensor
    boxes: Tensor

    def at_least_float32(self) -> "Predictions":
        """Return the same predictions, at least in float32."""
        return Predictions(*(part.to(at_least_float32(part.dtype)) for part in self))
