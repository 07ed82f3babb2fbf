"""The set losses (DETR, section 3.1, equation 2): each query answers for the object that it was matched with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.boxes import box_iou
from ..models.predictions import Predictions
from .matcher import ALPHA, GAMMA, Match, Matcher, Target, focal_cost, softmax_cost

NO_OBJECT = 0.1
"""Weight of the no-object class, of which most queries are (section 3.1)."""


class Losses(NamedTuple):
    """The terms of one decoder layer, before they are weighted.

    Attributes:
        classes: of the logits.
        boxes: L1 or smooth L1 distance of the boxes.
        giou: lacking generalised IoU of the boxes.
    """

    classes: Tensor
    boxes: Tensor
    giou: Tensor


class Matched(NamedTuple):
    """What a class loss is taken of.

    Attributes:
        logits: (B, Q, K).
        match: M pairs.
        labels: (M,) of the matched objects.
        iou: (M,) IoU of each matched query's box with its object's, without gradient.
        objects: by how many objects a sum is divided.
    """

    logits: Tensor
    match: Match
    labels: Tensor
    iou: Tensor
    objects: Tensor


ClassLoss: TypeAlias = Callable[[Matched], Tensor]


def cross_entropy(matched: Matched) -> Tensor:
    """DETR's: cross-entropy over classes and no-object, which every query without an object should be."""
    logits, match = matched.logits, matched.match
    no_object = logits.shape[-1] - 1
    wanted = logits.new_full(logits.shape[:2], no_object, dtype=torch.int64)
    wanted[match.image, match.query] = matched.labels
    weights = logits.new_ones(logits.shape[-1])
    weights[no_object] = NO_OBJECT
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weights)


def iou_aware_bce(matched: Matched) -> Tensor:
    """LW-DETR's (section 3.2, equations 1 and 2): a hit should score what its box is worth, all else nothing."""
    logits, match = matched.logits, matched.match
    probability = logits.sigmoid()
    hits = (match.image, match.query, matched.labels)
    worth = (probability[hits].detach() ** ALPHA * matched.iou ** (1 - ALPHA)).clamp(min=0.01)
    positive = torch.zeros_like(logits)
    positive[hits] = worth
    negative = probability**GAMMA
    negative[hits] = 1 - worth
    terms = positive * F.logsigmoid(logits) + negative * F.logsigmoid(-logits)
    return -terms.sum() / matched.objects


@dataclass(frozen=True)
class SetCriterion:
    """Matches every decoder layer's answer, and the proposals if there are any, and sums their losses.

    Attributes:
        matcher: assigns queries to objects.
        class_loss: of the logits.
        class_weight: weight of that.
        box_loss: distance of boxes, (M, 4) and (M, 4) → (M, 4).
        box_weight: weight of that.
        giou_weight: weight of the lacking generalised IoU.
    """

    matcher: Matcher
    class_loss: ClassLoss
    class_weight: float = 1
    box_loss: Callable[[Tensor, Tensor], Tensor] = lambda one, other: (one - other).abs()
    box_weight: float = 5
    giou_weight: float = 2

    def __call__(
        self, answers: Sequence[Predictions], targets: Sequence[Target], *, objects: Tensor, groups: int = 1
    ) -> tuple[Tensor, list[Losses]]:
        """Take the losses of a batch, in float32 at least.

        Args:
            answers: of each decoder layer, the last one last, and after them of the proposals if there are any: logits
                (B, groups·Q, K) and boxes (B, groups·Q, 4).
            targets: one an image.
            objects: how many objects a process has in a batch, on average over all of them.
            groups: number of query groups, each of which is to find every object.

        Returns:
            The weighted total, and the terms of each answer.
        """
        terms = [self.losses(answer, targets, objects * groups, groups) for answer in answers]
        weights = (self.class_weight, self.box_weight, self.giou_weight)
        total = sum(weight * term for losses in terms for weight, term in zip(weights, losses, strict=True))
        return torch.as_tensor(total), terms

    def losses(self, answer: Predictions, targets: Sequence[Target], objects: Tensor, groups: int) -> Losses:
        """The terms of one answer."""
        answer = answer.at_least_float32()
        match = self.matcher(answer, targets, groups)
        starts = torch.tensor([0, *(len(target.labels) for target in targets[:-1])], device=match.target.device)
        place = match.target + starts.cumsum(0)[match.image]
        labels = torch.cat([target.labels for target in targets])[place]
        wanted = torch.cat([target.boxes for target in targets])[place].to(answer.boxes.dtype)
        boxes = answer.boxes[match.image, match.query]
        agreement = box_iou(boxes, wanted)
        return Losses(
            self.class_loss(Matched(answer.logits, match, labels, agreement.iou.detach(), objects)),
            self.box_loss(boxes, wanted).sum() / objects,
            (1 - agreement.giou).sum() / objects,
        )


def smooth_l1(one: Tensor, other: Tensor) -> Tensor:
    """The box loss that is quadratic near zero, element by element."""
    return F.smooth_l1_loss(one, other, reduction="none")


DETR_CRITERION = SetCriterion(Matcher(softmax_cost, class_weight=1), cross_entropy)
LWDETR_CRITERION = SetCriterion(Matcher(focal_cost, class_weight=2), iou_aware_bce)
