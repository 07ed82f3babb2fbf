"""Attention by powers of two is attention, whatever the scores."""

import copy

import pytest
import torch
from torch import Tensor

from detrcli.models.cpu import PowerAttention
from detrcli.models.folding import JointSelfAttention
from detrcli.models.vit import SelfAttention

DIM, HEADS = 32, 4


def attention(*, window: bool, sharpness: float) -> JointSelfAttention:
    """One whose largest score grows with the square of its sharpness."""
    torch.manual_seed(0)
    plain = SelfAttention(DIM, HEADS, window=window).requires_grad_(False).double()
    plain.query.weight *= sharpness
    plain.key.weight *= sharpness
    return JointSelfAttention(plain)


def tokens(batch: int) -> Tensor:
    return torch.randn(batch, 80, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sharpness", [1, 8, 100, 1000])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_mixes_as_softmax_does(window: bool, sharpness: float, batch: int) -> None:
    joint, x = attention(window=window, sharpness=sharpness), tokens(batch)
    torch.testing.assert_close(PowerAttention(copy.deepcopy(joint))(x), joint(x))


def test_it_mixes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PowerAttention, "AT_ONCE", HEADS * 80 * 32)
    joint, x = attention(window=False, sharpness=1), tokens(1)
    torch.testing.assert_close(PowerAttention(copy.deepcopy(joint))(x), joint(x))


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("sharpness", [1, 8, 100])
def test_in_bfloat16_it_is_as_near_as_pytorchs(window: bool, sharpness: float) -> None:
    joint, x = attention(window=window, sharpness=sharpness), tokens(4)
    exact = joint(x)
    apart = [
        (module.bfloat16()(x.bfloat16()) - exact).abs().mean()
        for module in (PowerAttention(copy.deepcopy(joint)), copy.deepcopy(joint))
    ]
    assert apart[0] < 1.5 * apart[1] < 0.5 * exact.abs().mean()
