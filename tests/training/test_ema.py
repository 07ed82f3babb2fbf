"""Exponential moving average of the weights."""

import copy
import math

import torch

from detrcli.training.ema import ModelEma

from .small import small_lwdetr


def test_ema_follows_the_weights() -> None:
    network = small_lwdetr().network
    ema = ModelEma(network, decay=0.9, warmup_steps=1)
    start = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    ema.update(network, 2)
    kept = 0.9 * (1 - math.exp(-2))
    for name, value in ema.network.named_parameters():
        torch.testing.assert_close(value, start[name] * kept + (start[name] + 1) * (1 - kept))
    for _ in range(400):
        ema.update(network, 1000)
    for name, value in ema.network.named_parameters():
        torch.testing.assert_close(value, start[name] + 1, rtol=0, atol=1e-4)
