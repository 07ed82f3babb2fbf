"""What a training is made of, but for its data and its model."""

from dataclasses import dataclass, field
from typing import Literal

from ..images.resize import Exactly, Padded, ResizeRule, ShortestEdge, Within, fit_and_pad
from .augment import Augmentation
from .optimizer import LrSchedule, Rates


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: times that every image is seen.
        batch_size: of each process.
        rate: the learning rate of the heads.
        rates: those of the rest, and weight decay.
        warm_up: steps in which the rate rises.
        decline: how it falls.
        clip: the largest norm of the gradient (DETR, appendix A.4).
        decay: of the average of the weights in the long run.
        settling: steps in which that average slows down to it.
        box_loss: distance of boxes.
        augmentation: how images are varied.
        multi_scale: whether batches come in several sizes.
        precision: of the network's products.
        validate_every: epochs from one measurement of AP to the next; the last epoch is always measured.
        seed: of everything random.
    """

    epochs: int
    batch_size: int
    rate: float
    rates: Rates
    warm_up: int = 100
    decline: LrSchedule = "cosine"
    clip: float = 0.1
    decay: float = 0.9995
    ema_warmup_steps: int = 2000
    box_loss: Literal["l1", "smooth_l1"] = "l1"
    augmentation: Augmentation = field(default_factory=Augmentation)
    multi_scale: bool = True
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    validate_every: int = 1
    seed: int = 0


def sizes_around(rule: ResizeRule, stride: int) -> tuple[ResizeRule, ...]:
    """The sizes of a multi-scale training.

    From three quarters of the model's own to a quarter more, or DETR's: shortest sides of 480 to 800 for a model of
    800, and the same longest side for all (appendix A.4).
    """
    match rule:
        case Exactly(width, height):
            shares = {(_near(width * share, stride), _near(height * share, stride)) for share in _SHARES}
            return tuple(Exactly(*sides) for sides in sorted(shares))
        case Padded(Within(), width, height):
            sizes = sizes_around(Exactly(width, height), stride)
            return tuple(fit_and_pad(one.width, one.height) for one in sizes if isinstance(one, Exactly))
        case ShortestEdge(shortest, longest):
            return tuple(ShortestEdge(round(shortest * share), longest) for share in (0.6, 0.7, 0.8, 0.9, 1))
    return (rule,)


_SHARES = (0.75, 0.875, 1, 1.125, 1.25)


def _near(side: float, stride: int) -> int:
    return max(stride, round(side / stride) * stride)
