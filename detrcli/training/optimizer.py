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

Decline = Literal["cosine", "step"]


@dataclass(frozen=True)
class Rates:
    """Learning rates, relative to the network's, and weight decay.

    Attributes:
        backbone: factor for the backbone (DETR: 0.1, appendix A.4; LW-DETR's ViT: 1.5).
        layer_decay: factor from each block of the ViT to the one before it (LW-DETR: 0.8).
        weight_decay: for all but norms, biases, positions and scales.
    """

    backbone: float = 1
    layer_decay: float = 1
    weight_decay: float = 1e-4


FINE_TUNING = {Detr: Rates(backbone=0.1), LwDetr: Rates(backbone=1.5, layer_decay=0.8)}
FROM_SCRATCH = Rates()


def optimizer_for(network: Detr | LwDetr, rate: float, rates: Rates) -> torch.optim.AdamW:
    """AdamW over everything that is to be learned.

    Args:
        network: its parameters without gradient are left out.
        rate: the learning rate of the transformer and the heads.
        rates: those of the rest.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = _factor(name, network, rates)
            decay = 0.0 if parameter.dim() < 2 or name.endswith("positions.weight") else rates.weight_decay
            groups.setdefault((factor, decay), []).append(parameter)
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
    if not name.startswith("backbone."):
        return 1
    if isinstance(network, Detr):
        return rates.backbone
    block = re.match(r"backbone\.blocks\.(\d+)\.", name)
    above = network.config.vit_depth - (int(block[1]) + 1 if block else 0)
    return rates.backbone * rates.layer_decay**above


def share(step: int, steps: int, *, warm_up: int, decline: Decline) -> float:
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
