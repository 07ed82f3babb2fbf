"""How far two boxes agree."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..inference.postprocess import cxcywh_to_xyxy


class Overlap(NamedTuple):
    """Of two boxes.

    Attributes:
        iou: intersection over union, 0…1.
        giou: generalised IoU (Rezatofighi et al. 2019), -1…1.
    """

    iou: Tensor
    giou: Tensor


def overlap(one: Tensor, other: Tensor) -> Overlap:
    """Compare boxes (…, 4) as cx, cy, w, h, element by element as far as their shapes broadcast."""
    one, other = cxcywh_to_xyxy(one), cxcywh_to_xyxy(other)
    intersection = _area(torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:]))
    union = _area(one[..., :2], one[..., 2:]) + _area(other[..., :2], other[..., 2:]) - intersection
    hull = _area(torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:]))
    tiny = torch.finfo(union.dtype).tiny
    union, hull = union.clamp(min=tiny), hull.clamp(min=tiny)
    iou = intersection / union
    return Overlap(iou, iou - (hull - union) / hull)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)
