"""AdamW with the papers' learning rates for the parts of a network, and how they rise and fall."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..models.detr import Detr
from ..models.lwdetr import LwDetr

LrSchedule = Literal["cosine", "step"]


@dataclass(frozen=True)
class Rates:
    """Learning rates, relative to the heads', and weight decay.

    Attributes:
        backbone: factor for the backbone, before the two decays.
        layer_decay: factor from each layer of the ViT to the one before it; the last block has it once.
        component_decay: factor from LW-DETR's heads and projector to its decoder, and again from there to its ViT.
        weight_decay: for everything but the ViT's norms, biases, positions and scales.
    """

    backbone: float = 1
    layer_decay: float = 1
    component_decay: float = 1
    weight_decay: float = 1e-4


FROM_SCRATCH = Rates()
DETR_RATES = Rates(backbone=0.1)
"""As published (appendix A.4)."""
LWDETR_RATES = {
    (192, 256): Rates(1.5, layer_decay=0.8, component_decay=0.7),  # tiny, small
    (384, 256): Rates(1.5, layer_decay=0.7, component_decay=0.7),  # medium
    (384, 384): Rates(1.5, layer_decay=0.7, component_decay=0.5),  # large
    (768, 384): Rates(1.5, layer_decay=0.75, component_decay=0.5, weight_decay=1e-3),  # xlarge
}
"""Those with which the published LW-DETRs were fine-tuned on COCO, by the widths of ViT and decoder."""


def fine_tuning(network: Detr | LwDetr) -> Rates:
    """The published rates for fine-tuning a network: LW-DETR-tiny's where its size is nobody's."""
    if isinstance(network, Detr):
        return DETR_RATES
    return LWDETR_RATES.get((network.config.vit_dim, network.config.hidden_dim), LWDETR_RATES[192, 256])


def optimizer_for(network: Detr | LwDetr, rate: float, rates: Rates) -> torch.optim.AdamW:
    """AdamW over everything that is to be learned.

    Args:
        network: its parameters without gradient are left out.
        rate: the learning rate of the heads.
        rates: those of the rest.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            in_vit = isinstance(network, LwDetr) and name.startswith("backbone.")
            fixed = in_vit and (parameter.dim() < 2 or name.endswith("positions.weight"))
            decay = 0.0 if fixed else rates.weight_decay
            groups.setdefault((_factor(name, network, rates), decay), []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return torch.optim.AdamW(described, fused=True)


def freeze_stem(network: Detr | LwDetr) -> None:
    """Keep the first layers of a pretrained ResNet as they are, as DETR's training does."""
    if isinstance(network, Detr):
        for part in (network.backbone.conv1, network.backbone.layer1):
            part.requires_grad_(False)


def _factor(name: str, network: Detr | LwDetr, rates: Rates) -> float:
    part = name.partition(".")[0]
    if isinstance(network, Detr):
        return rates.backbone if part == "backbone" else 1
    if part == "decoder":
        return rates.component_decay
    if part != "backbone":
        return 1
    block = re.match(r"backbone\.blocks\.(\d+)\.", name)
    layer = int(block[1]) + 1 if block else 0
    decays = network.config.vit_depth + 1 - layer
    return rates.backbone * rates.layer_decay**decays * rates.component_decay**2


def share(step: int, steps: int, *, warm_up: int, decline: LrSchedule) -> float:
    """How much of its full learning rate a step has: a linear rise, then the fall.

    Args:
        step: counted from 0.
        steps: of the whole training.
        warm_up: steps of the rise.
        decline: a cosine down to a hundredth, or a tenth after two thirds of the way (DETR: 200 of 300 epochs).
    """
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    way = (step - warm_up) / max(1, steps - warm_up)
    if decline == "step":
        return 1 if way < 2 / 3 else 0.1
    return 0.01 + 0.99 * (1 + math.cos(math.pi * way)) / 2


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    """Everything that an optimizer changes."""
    for group in optimizer.param_groups:
        yield from group["params"]
