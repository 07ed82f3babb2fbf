"""Exponential moving average (EMA) of a network's weights."""

import copy
import math

import torch
from torch import nn

from ..models.detr import Detr
from ..models.lwdetr import LwDetr


class ModelEma:
    """EMA of parameters and batch-norm statistics, with a decay that rises during warmup.

    Args:
        network: network with the initial weights; it is copied.
        decay: decay after warmup.
        warmup_steps: time constant of the warmup; after n times as many steps the decay has reached 1 - exp(-n) of
            its value.

    Attributes:
        network: network with the averaged weights, in eval mode.
    """

    def __init__(self, network: Detr | LwDetr, *, decay: float, warmup_steps: int) -> None:
        self.network: Detr | LwDetr = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay, self._warmup_steps = decay, warmup_steps

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Update the average after a training step, counted from 1."""
        decay = self._decay * (1 - math.exp(-step / self._warmup_steps))
        average, current = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [current[name] for name in floats], 1 - decay)
        for name in average.keys() - set(floats):
            average[name].copy_(current[name])
