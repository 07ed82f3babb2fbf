"""Set losses on matched pairs of queries and objects (DETR, section 3.1, equation 2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.boxes import Predictions, box_iou
from ..models.detr import DetrConfig
from ..models.lwdetr import LwDetrConfig
from ..models.table_transformer import TableTransformerConfig
from .matcher import ALPHA, GAMMA, Match, Matcher, Target, focal_cost, softmax_cost

NO_OBJECT = 0.1
"""Weight of the no-object class, which outnumbers all others (section 3.1)."""


class Losses(NamedTuple):
    """Unweighted losses of one decoder layer.

    Attributes:
        loss_class: classification loss.
        loss_bbox: L1 or smooth L1 loss of the boxes.
        loss_giou: generalized IoU loss of the boxes.
    """

    loss_class: Tensor
    loss_bbox: Tensor
    loss_giou: Tensor


class Matched(NamedTuple):
    """Input of a classification loss.

    Attributes:
        logits: (B, Q, K).
        match: M matched pairs.
        labels: (M,) labels of the matched objects.
        iou: (M,) IoU of each pair's boxes, without gradient.
        num_objects: divisor of sums.
    """

    logits: Tensor
    match: Match
    labels: Tensor
    iou: Tensor
    num_objects: Tensor


ClassLoss: TypeAlias = Callable[[Matched], Tensor]


def cross_entropy(matched: Matched, *, no_object_weight: float = NO_OBJECT) -> Tensor:
    """Cross-entropy of DETR over the classes and no-object, the target of every unmatched query."""
    logits, match = matched.logits, matched.match
    no_object = logits.shape[-1] - 1
    target = logits.new_full(logits.shape[:2], no_object, dtype=torch.int64)
    target[match.image, match.query] = matched.labels
    weights = logits.new_ones(logits.shape[-1])
    weights[no_object] = no_object_weight
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weights)


def iou_aware_bce(matched: Matched) -> Tensor:
    """IoU-aware binary cross-entropy of LW-DETR (section 3.2, equations 1 and 2)."""
    logits, match = matched.logits, matched.match
    probability = logits.sigmoid()
    pairs = (match.image, match.query, matched.labels)
    quality = (probability[pairs].detach() ** ALPHA * matched.iou ** (1 - ALPHA)).clamp(min=0.01)
    positive = torch.zeros_like(logits)
    positive[pairs] = quality
    negative = probability**GAMMA
    negative[pairs] = 1 - quality
    terms = positive * F.logsigmoid(logits) + negative * F.logsigmoid(-logits)
    return -terms.sum() / matched.num_objects


@dataclass(frozen=True)
class SetCriterion:
    """Weighted sum of the losses of every decoder layer, and of the proposals if there are any.

    Attributes:
        matcher: assignment of queries to objects.
        class_loss: classification loss.
        class_weight: its weight.
        box_loss: elementwise box loss, (M, 4) and (M, 4) → (M, 4).
        box_weight: its weight.
        giou_weight: weight of the generalized IoU loss.
    """

    matcher: Matcher
    class_loss: ClassLoss
    class_weight: float = 1
    box_loss: Callable[[Tensor, Tensor], Tensor] = lambda boxes, targets: (boxes - targets).abs()
    box_weight: float = 5
    giou_weight: float = 2

    def __call__(
        self, predictions: Sequence[Predictions], targets: Sequence[Target], *, num_objects: Tensor, groups: int = 1
    ) -> tuple[Tensor, list[Losses]]:
        """Compute the losses of a batch, at least in float32.

        Args:
            predictions: logits (B, groups·Q, K) and boxes (B, groups·Q, 4) of each decoder layer, first to last, and
                then of the proposals if there are any.
            targets: objects of each image.
            num_objects: mean number of objects in the batches of all processes.
            groups: number of query groups; each is matched with all objects.

        Returns:
            The weighted sum, and the unweighted losses of each element of `predictions`.
        """
        losses = [self.layer_losses(layer, targets, num_objects * groups, groups) for layer in predictions]
        weights = (self.class_weight, self.box_weight, self.giou_weight)
        total = sum(weight * loss for layer in losses for weight, loss in zip(weights, layer, strict=True))
        return torch.as_tensor(total), losses

    def layer_losses(
        self, predictions: Predictions, targets: Sequence[Target], num_objects: Tensor, groups: int
    ) -> Losses:
        """Compute the unweighted losses of one decoder layer."""
        logits, boxes = predictions.at_least_float32()
        match = self.matcher(Predictions(logits, boxes), targets, groups)
        starts = torch.tensor([0, *(len(target.labels) for target in targets[:-1])], device=match.target.device)
        index = match.target + starts.cumsum(0)[match.image]
        target_labels = torch.cat([target.labels for target in targets])[index]
        target_boxes = torch.cat([target.boxes for target in targets])[index].to(boxes.dtype)
        boxes = boxes[match.image, match.query]
        iou, giou = box_iou(boxes, target_boxes)
        return Losses(
            self.class_loss(Matched(logits, match, target_labels, iou.detach(), num_objects)),
            self.box_loss(boxes, target_boxes).sum() / num_objects,
            (1 - giou).sum() / num_objects,
        )


def smooth_l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """Elementwise smooth L1 loss."""
    return F.smooth_l1_loss(boxes, targets, reduction="none")


DETR_CRITERION = SetCriterion(Matcher(softmax_cost, class_weight=1), cross_entropy)
TABLE_TRANSFORMER_CRITERION = replace(DETR_CRITERION, class_loss=partial(cross_entropy, no_object_weight=0.4))
"""With the no-object weight of the published models."""
LWDETR_CRITERION = SetCriterion(Matcher(focal_cost, class_weight=2), iou_aware_bce)


def criterion_for(config: DetrConfig | LwDetrConfig) -> SetCriterion:
    """Return the criterion that networks of a configuration are trained with."""
    match config:
        case TableTransformerConfig():
            return TABLE_TRANSFORMER_CRITERION
        case DetrConfig():
            return DETR_CRITERION
    return LWDETR_CRITERION
