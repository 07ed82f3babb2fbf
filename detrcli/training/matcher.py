"""Bipartite matching of object queries and objects (DETR, section 3.1, equation 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..models.boxes import box_iou
from ..models.predictions import Predictions

ALPHA, GAMMA = 0.25, 2
"""Of the focal loss (Lin et al. 2017)."""


class Target(NamedTuple):
    """The objects of one image.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) as cx, cy, w, h relative to the image, in 0…1.
    """

    labels: Tensor
    boxes: Tensor


class Match(NamedTuple):
    """Who was assigned to whom, for a batch: the M pairs of all images one after the other.

    Attributes:
        image: (M,) index into the batch.
        query: (M,) index of the object query.
        target: (M,) index of the object in its image.
    """

    image: Tensor
    query: Tensor
    target: Tensor


def softmax_cost(logits: Tensor) -> Tensor:
    """DETR's cost of each class: the probability that is lacking, up to a constant. (…, K+1) → the same shape."""
    return -logits.softmax(-1)


def focal_cost(logits: Tensor) -> Tensor:
    """LW-DETR's cost of each class: the focal loss as a hit minus that as a miss. (…, K) → the same shape."""
    probability = logits.sigmoid()
    hit = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
    miss = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
    return hit - miss


@dataclass(frozen=True)
class Matcher:
    """Finds the assignment of least cost, a query for each object, for each query group anew.

    Attributes:
        class_cost: logits (…, K) → the cost of each class.
        class_weight: weight of that cost.
        l1_weight: weight of the L1 distance of boxes.
        giou_weight: weight of the lacking generalised IoU.
    """

    class_cost: Callable[[Tensor], Tensor]
    class_weight: float
    l1_weight: float = 5
    giou_weight: float = 2

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Sequence[Target], groups: int = 1) -> Match:
        """Match a batch.

        Args:
            predictions: logits (B, groups·Q, K) and boxes (B, groups·Q, 4), group after group.
            targets: one an image.
            groups: number of query groups.

        Returns:
            The pairs, those of an image together and within it those of a group, by rising query.
        """
        costs = self.costs(predictions, targets).nan_to_num(nan=1e6).cpu()  # the losses tell of what is no number
        size = costs.shape[1] // groups
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for image, target in enumerate(targets):
            for group, cost in enumerate(costs[image, :, : len(target.labels)].split(size)):
                queries, objects = (torch.from_numpy(side) for side in linear_sum_assignment(cost.numpy()))
                rows.append((torch.full_like(queries, image), queries + group * size, objects))
        return Match(*(torch.cat(part).to(predictions.boxes.device) for part in zip(*rows, strict=True)))

    def costs(self, predictions: Predictions, targets: Sequence[Target]) -> Tensor:
        """The cost of each pair.

        Returns:
            (B, Q, N), N of the image of most objects; what is beyond an image's own means nothing.
        """
        logits, boxes = predictions.at_least_float32()
        labels = pad_sequence([target.labels for target in targets], batch_first=True)
        wanted = pad_sequence([target.boxes for target in targets], batch_first=True).to(boxes.dtype)
        by_label = self.class_cost(logits).gather(2, labels[:, None].expand(-1, logits.shape[1], -1))
        return (
            self.class_weight * by_label
            + self.l1_weight * torch.cdist(boxes, wanted, p=1)
            - self.giou_weight * box_iou(boxes[:, :, None], wanted[:, None]).giou
        )
