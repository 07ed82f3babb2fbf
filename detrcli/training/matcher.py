"""Bipartite matching of object queries and objects (DETR, section 3.1, equation 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..models.boxes import Predictions, box_iou

ALPHA, GAMMA = 0.25, 2
"""Parameters of the focal loss (Lin et al. 2017)."""


class Target(NamedTuple):
    """Objects of one image.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) as cx, cy, w, h relative to the image, in 0…1.
    """

    labels: Tensor
    boxes: Tensor


class Match(NamedTuple):
    """M matched pairs of a batch, image after image.

    Attributes:
        image: (M,) index into the batch.
        query: (M,) index of the object query.
        target: (M,) index of the object in its image.
    """

    image: Tensor
    query: Tensor
    target: Tensor


def softmax_cost(logits: Tensor) -> Tensor:
    """Class cost of DETR: the negative probability. (…, K+1) → the same shape."""
    return -logits.softmax(-1)


def focal_cost(logits: Tensor) -> Tensor:
    """Class cost of LW-DETR: the focal loss as a positive minus that as a negative. (…, K) → the same shape."""
    probability = logits.sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
    return positive - negative


@dataclass(frozen=True)
class Matcher:
    """Assignment of one query to each object at the lowest total cost, separately for each query group.

    Objects beyond the number of queries stay unmatched.

    Attributes:
        class_cost: logits (…, K) → cost of each class.
        class_weight: weight of the class cost.
        l1_weight: weight of the L1 distance between boxes.
        giou_weight: weight of the generalized IoU.
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
            targets: objects of each image.
            groups: number of query groups.

        Returns:
            Pairs sorted by image, group and query.
        """
        costs = self.costs(predictions, targets).nan_to_num(nan=1e6).cpu()  # NaN shows in the loss
        size = costs.shape[1] // groups
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        for image, target in enumerate(targets):
            for group, cost in enumerate(costs[image, :, : len(target.labels)].split(size)):
                queries, objects = (torch.from_numpy(side) for side in linear_sum_assignment(cost.numpy()))
                pairs.append((torch.full_like(queries, image), queries + group * size, objects))
        return Match(*(torch.cat(part).to(predictions.boxes.device) for part in zip(*pairs, strict=True)))

    def costs(self, predictions: Predictions, targets: Sequence[Target]) -> Tensor:
        """Compute the cost of each pair.

        Returns:
            (B, Q, N), padded to the largest number of objects in an image; costs of padding are meaningless.
        """
        logits, boxes = predictions.at_least_float32()
        labels = pad_sequence([target.labels for target in targets], batch_first=True)
        target_boxes = pad_sequence([target.boxes for target in targets], batch_first=True).to(boxes.dtype)
        class_cost = self.class_cost(logits).gather(2, labels[:, None].expand(-1, logits.shape[1], -1))
        return (
            self.class_weight * class_cost
            + self.l1_weight * torch.cdist(boxes, target_boxes, p=1)
            - self.giou_weight * box_iou(boxes[:, :, None], target_boxes[:, None]).giou
        )
