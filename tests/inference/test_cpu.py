"""Attention by powers of two equals softmax attention, whatever the scores."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detrcli.inference.cpu import Exp2Attention
from detrcli.inference.fuse import FusedQKVAttention
from detrcli.models.vit import SelfAttention

DIM, HEADS = 32, 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of calls of `exp2_`, and of PyTorch's own attention."""
    counts: Counter[str] = Counter()
    exp2_, attend = Tensor.exp2_, F.scaled_dot_product_attention

    def counted(name: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Any, **options: Any) -> Tensor:
            counts[name] += 1
            return call(*args, **options)

        return run

    monkeypatch.setattr(Tensor, "exp2_", counted("exp2", exp2_))
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted("attention", attend))
    return counts


def attention(*, window: bool = False, sharpness: float = 1, shift: float = 0) -> FusedQKVAttention:
    """Attention whose largest score grows with the square of `sharpness`, and whose scores are all shifted."""
    torch.manual_seed(0)
    plain = SelfAttention(DIM, HEADS, windows=16 if window else 1, key_bias=False).requires_grad_(False).double()
    plain.query.weight *= sharpness
    plain.key.weight *= sharpness
    fused = FusedQKVAttention(plain)
    if shift:
        query, key, _ = fused.qkv.bias.unflatten(0, (3, HEADS, -1))
        fused.qkv.weight.unflatten(0, (3, HEADS, -1))[:2, :, 0] = 0
        query[:, 0], key[:, 0] = shift, 1
    return fused


def tokens(batch: int) -> Tensor:
    return torch.randn(batch, 80, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("sharpness", "in_range"), [(1, True), (4, True), (8, False), (100, False), (1000, False)])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_equals_softmax(window: bool, sharpness: float, in_range: bool, batch: int, calls: Counter[str]) -> None:
    fused, x = attention(window=window, sharpness=sharpness), tokens(batch)
    mixed = Exp2Attention(copy.deepcopy(fused))(x)
    assert calls["exp2"] == 1
    assert calls["attention"] == (0 if in_range else 1)
    torch.testing.assert_close(mixed, fused(x))


@pytest.mark.parametrize(("shift", "in_range"), [(-50, True), (50, True), (-80, False), (80, False), (-300, False)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_scores_that_are_all_small_or_all_large(
    shift: float, in_range: bool, dtype: torch.dtype, calls: Counter[str]
) -> None:
    fused, x = attention(sharpness=0.1, shift=shift), tokens(1)
    expected = fused(x)
    calls.clear()
    mixed = Exp2Attention(copy.deepcopy(fused)).to(dtype)(x.to(dtype))
    assert calls["attention"] == (0 if in_range else 1)
    tolerance = 1e-9 if dtype == torch.float64 else 0.02
    torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=tolerance)


def test_it_equals_softmax_in_chunks(monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> None:
    monkeypatch.setattr(Exp2Attention, "MAX_SCORES", HEADS * 80 * 32)
    fused, x = attention(), tokens(1)
    mixed = Exp2Attention(copy.deepcopy(fused))(x)
    assert calls["exp2"] == 3  # of 32, 32 and 16 queries
    torch.testing.assert_close(mixed, fused(x))


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("sharpness", [1, 4, 8, 100])
def test_in_bfloat16_it_is_as_accurate_as_pytorch(window: bool, sharpness: float) -> None:
    fused, x = attention(window=window, sharpness=sharpness), tokens(4)
    expected = fused(x)
    errors = [
        (module.bfloat16()(x.bfloat16()) - expected).abs().mean()
        for module in (Exp2Attention(copy.deepcopy(fused)), copy.deepcopy(fused))
    ]
    assert errors[0] < 1.5 * errors[1] < 0.5 * expected.abs().mean()
