"""What every network of this package answers."""

from typing import NamedTuple

from torch import Tensor


class Predictions(NamedTuple):
    """One answer for each object query.

    Attributes:
        logits: (B, Q, C) class scores before softmax or sigmoid.
        boxes: (B, Q, 4) as cx, cy, w, h relative to the picture, in 0…1.
    """

    logits: Tensor
    boxes: Tensor
