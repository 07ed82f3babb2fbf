"""Settings of a training run."""

from dataclasses import dataclass, field
from typing import Literal

from .augment import Augmentation
from .optimizer import LrSchedule, OptimizerConfig


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run, except for its model and its data.

    Attributes:
        epochs: number of epochs.
        batch_size: images per step and process.
        lr: learning rate of the heads.
        optimizer: learning-rate factors of the other parts, and weight decay.
        warmup_steps: steps of linear learning-rate warmup.
        lr_schedule: learning-rate schedule after warmup.
        clip_grad: maximum norm of the gradient (DETR, appendix A.4).
        ema_decay: decay of the exponential moving average of the weights.
        ema_warmup_steps: steps in which that decay rises.
        box_loss: box regression loss.
        augmentation: random variation of images.
        multi_scale: vary the image size from batch to batch.
        precision: mixed-precision dtype.
        val_interval: epochs between validations; the last epoch is always validated.
        seed: random seed.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: OptimizerConfig
    warmup_steps: int = 100
    lr_schedule: LrSchedule = "cosine"
    clip_grad: float = 0.1
    ema_decay: float = 0.9995
    ema_warmup_steps: int = 2000
    box_loss: Literal["l1", "smooth_l1"] = "l1"
    augmentation: Augmentation = field(default_factory=Augmentation)
    multi_scale: bool = True
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    val_interval: int = 1
    seed: int = 0
