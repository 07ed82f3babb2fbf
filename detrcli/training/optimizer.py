"""AdamW with the papers' learning rates for the parts of a network, and the learning-rate schedules."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..models.rfdetr import RfDetr
from ..models.table_transformer import TableTransformerConfig

LrSchedule = Literal["cosine", "step"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Learning rates relative to that of the heads, and weight decay.

    Attributes:
        backbone_lr_factor: factor for the backbone, before the two decays.
        layer_decay: factor from each ViT block to the one before; the last block has it once, RF-DETR's has it squared.
        component_decay: factor from LW-DETR's heads and projector to its decoder, and again from there to its ViT.
        weight_decay: weight decay, except for the ViT's norms and biases, LW-DETR's positions and scales, and RF-DETR's
            whole embedding (patches, positions and class token).
    """

    backbone_lr_factor: float = 1
    layer_decay: float = 1
    component_decay: float = 1
    weight_decay: float = 1e-4


FROM_SCRATCH = OptimizerConfig()
"""The same learning rate everywhere."""
DETR_FINE_TUNING = OptimizerConfig(backbone_lr_factor=0.1)
"""As published (DETR, appendix A.4)."""
TABLE_TRANSFORMER_FINE_TUNING = OptimizerConfig(backbone_lr_factor=0.2)
"""As the published models were trained on PubTables-1M."""
LWDETR_FINE_TUNING = {
    (192, 256): OptimizerConfig(1.5, layer_decay=0.8, component_decay=0.7),  # tiny, small
    (384, 256): OptimizerConfig(1.5, layer_decay=0.7, component_decay=0.7),  # medium
    (384, 384): OptimizerConfig(1.5, layer_decay=0.7, component_decay=0.5),  # large
    (768, 384): OptimizerConfig(1.5, layer_decay=0.75, component_decay=0.5, weight_decay=1e-3),  # xlarge
}
"""As the published models were fine-tuned on COCO, by the widths of ViT and decoder."""
RFDETR_FINE_TUNING = OptimizerConfig(1.5, layer_decay=0.8, component_decay=0.7)
"""As published for all sizes."""


def fine_tuning_config(network: Detr | LwDetr) -> OptimizerConfig:
    """Return the published settings for fine-tuning a network; for unknown sizes those of LW-DETR-tiny."""
    if isinstance(network.config, TableTransformerConfig):
        return TABLE_TRANSFORMER_FINE_TUNING
    if isinstance(network, Detr):
        return DETR_FINE_TUNING
    if isinstance(network, RfDetr):
        return RFDETR_FINE_TUNING
    return LWDETR_FINE_TUNING.get((network.config.vit_dim, network.config.hidden_dim), LWDETR_FINE_TUNING[192, 256])


def build_optimizer(network: Detr | LwDetr, lr: float, config: OptimizerConfig) -> torch.optim.AdamW:
    """Build AdamW over all parameters that require a gradient.

    Args:
        network: the network to train.
        lr: learning rate of the heads.
        config: learning-rate factors of the other parts, and weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            weight_decay = 0.0 if _is_exempt(name, parameter, network) else config.weight_decay
            groups.setdefault((_lr_factor(name, network, config), weight_decay), []).append(parameter)
    param_groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr * factor, "weight_decay": weight_decay}
        for (factor, weight_decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return torch.optim.AdamW(param_groups, fused=True)


def freeze_stem(network: Detr | LwDetr) -> None:
    """Freeze the first layers of a pretrained ResNet, as DETR's training does."""
    if isinstance(network, Detr):
        for part in (network.backbone.conv1, network.backbone.layer1):
            part.requires_grad_(False)


def _is_exempt(name: str, parameter: nn.Parameter, network: Detr | LwDetr) -> bool:
    """Tell whether weight decay does not apply."""
    if isinstance(network, Detr) or not name.startswith("backbone."):
        return False
    if isinstance(network, RfDetr):
        return name.endswith(".bias") or ".norm" in name or name.startswith("backbone.embedding.")
    return parameter.dim() < 2 or name.endswith("positions.weight")


def _lr_factor(name: str, network: Detr | LwDetr, config: OptimizerConfig) -> float:
    part = name.partition(".")[0]
    if isinstance(network, Detr):
        return config.backbone_lr_factor if part == "backbone" else 1
    if part == "decoder":
        return config.component_decay
    if part != "backbone":
        return 1
    if name.startswith("backbone.norm."):
        return config.backbone_lr_factor * config.component_decay**2
    block = re.match(r"backbone\.blocks\.(\d+)\.", name)
    layer = int(block[1]) + 1 if block else 0
    last = max(network.config.features) + 2 if isinstance(network, RfDetr) else network.config.vit_depth
    decays = last + 1 - layer
    return config.backbone_lr_factor * config.layer_decay**decays * config.component_decay**2


def lr_factor(step: int, steps: int, *, warmup_steps: int, schedule: LrSchedule) -> float:
    """Return the factor of the learning rate at a step: linear warmup, then the schedule.

    Args:
        step: step, from 0.
        steps: number of steps of the whole training run.
        warmup_steps: number of warmup steps.
        schedule: "cosine" decays to 1/100; "step" drops to 1/10 after two thirds (DETR: after 200 of 300 epochs).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "step":
        return 1 if progress < 2 / 3 else 0.1
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
