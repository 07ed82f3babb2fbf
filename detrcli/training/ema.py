"""The moving average of a network's weights, which is what is kept of a training."""

import copy
import math

import torch
from torch import nn

from ..models.detr import Detr
from ..models.lwdetr import LwDetr


class ModelEma:
    """An exponential moving average of parameters and statistics, quick to follow at first.

    Args:
        network: what it starts from.
        decay: how much of it stays at each step in the long run.
        warm_up: steps in which that rises.
    """

    def __init__(self, network: Detr | LwDetr, *, decay: float, warm_up: int) -> None:
        self.network: Detr | LwDetr = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay, self._warm_up = decay, warm_up

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take one step, the `step`-th counted from 1, towards a network."""
        decay = self._decay * (1 - math.exp(-step / self._warm_up))
        mine, its = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [its[name] for name in floats], 1 - decay)
        for name in mine.keys() - set(floats):
            mine[name].copy_(its[name])
