"""Network outputs, and boxes: tensors (…, 4), as cx, cy, w, h relative to the image unless stated otherwise."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Dtype for arithmetic on coordinates: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert boxes (…, 4) from cx, cy, w, h to x1, y1, x2, y2; a negative w or h, as in RF-DETR, counts as zero."""
    center, size = boxes[..., :2], boxes[..., 2:].relu()
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(…, 4) as x1, y1, x2, y2 → cx, cy, w, h."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def apply_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Shift centers by a multiple of the size, and scale sizes by an exponential.

    Args:
        boxes: (…, 4), at least float32.
        deltas: (…, 4).

    Returns:
        (…, 4), in the dtype of `boxes`.
    """
    deltas = deltas.to(boxes.dtype)
    size = boxes[..., 2:]
    return torch.cat((boxes[..., :2] + deltas[..., :2] * size, deltas[..., 2:].exp() * size), dim=-1)


def make_anchors(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Anchor box of each cell of some feature maps: centered in it, with sides of 0.05 · 2^level.

    Args:
        sizes: height and width of each feature map.
        like: tensor whose device is used, and whose dtype if it is wide enough.

    Returns:
        (S, 4), S cells in all, at least float32.
    """
    dtype = at_least_float32(like.dtype)
    anchors = []
    for level, (height, width) in enumerate(sizes):
        y = (torch.arange(height, dtype=dtype, device=like.device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=like.device) + 0.5) / width
        side = torch.full((height, width), 0.05 * 2**level, dtype=dtype, device=like.device)
        anchors.append(torch.stack((x.expand(height, width), y[:, None].expand(height, width), side, side), -1))
    return torch.cat([one.flatten(0, 1) for one in anchors])


class BoxIoU(NamedTuple):
    """Overlap of pairs of boxes.

    Attributes:
        iou: intersection over union, 0…1.
        giou: generalized IoU (Rezatofighi et al. 2019), -1…1.
    """

    iou: Tensor
    giou: Tensor


def box_iou(boxes: Tensor, others: Tensor) -> BoxIoU:
    """IoU and generalized IoU of boxes (…, 4), elementwise; the shapes broadcast."""
    boxes, others = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(others)
    intersection = _area(torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - intersection
    hull = _area(torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:]))
    tiny = torch.finfo(union.dtype).tiny
    union, hull = union.clamp(min=tiny), hull.clamp(min=tiny)
    iou = intersection / union
    return BoxIoU(iou, iou - (hull - union) / hull)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


class Predictions(NamedTuple):
    """One prediction per object query.

    Attributes:
        logits: (B, Q, C) class scores before softmax (DETR, Table Transformer) or sigmoid (LW-DETR, RF-DETR).
        boxes: (B, Q, 4) as cx, cy, w, h relative to the image: DETR's and Table Transformer's in 0…1, the others'
            unbounded.
    """

    logits: Tensor
    boxes: Tensor

    def at_least_float32(self) -> "Predictions":
        """Return the same predictions, at least in float32."""
        return Predictions(*(part.to(at_least_float32(part.dtype)) for part in self))
