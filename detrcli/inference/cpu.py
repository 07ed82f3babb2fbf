"""Forms of a fused network that are fast on a CPU, equal to it up to rounding.

Each function changes a network in place, after which it must stay on the CPU.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.vit import Block
from .fuse import FusedQKVAttention


def pack_linears(network: nn.Module) -> None:
    """Reorder the weights of linear layers for oneDNN, once instead of for each product.

    In bfloat16, oneDNN otherwise reorders them each time; in float32, PyTorch otherwise uses MKL, which is slow on CPUs
    other than Intel's. Layers whose dtype oneDNN does not support natively are left unchanged. Packed layers can
    neither be copied nor saved nor change their dtype.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and _can_pack(child.weight.dtype):
                setattr(module, name, PackedLinear(child))


class PackedLinear(nn.Module):
    """Linear layer with weights in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)."""
        return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))


def flop_formulas() -> dict[Callable[..., object], Callable[..., int]]:
    """Formulas for PyTorch's `FlopCounterMode` of the operators of packed layers."""
    return {torch.ops.mkldnn._linear_pointwise: _linear_flops} if _can_pack(torch.float32) else {}


def _linear_flops(x: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * x[-1] * math.prod(out_shape)


def _can_pack(dtype: torch.dtype) -> bool:
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operators, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(operators._is_mkldnn_bf16_supported()))


def use_exp2_attention(network: nn.Module) -> None:
    """Replace the attention of a fused ViT by `Exp2Attention`.

    For bfloat16, where PyTorch's own attention converts to float32 and back; the range of float16 is too small. Call it
    while the network is in float32, so that weights are rounded only once.
    """
    for module in list(network.modules()):
        if isinstance(module, Block):
            assert isinstance(module.attention, FusedQKVAttention)
            module.attention = Exp2Attention(module.attention)


class Exp2Attention(nn.Module):
    """`FusedQKVAttention` with 2^score in place of exp(score): weights are scaled such that softmax is the same.

    Tokens are columns, as the matrix products with queries and values need them. A constant row of ones below the
    values yields the sums of the weights. Softmax subtracts the largest score to stay in range; here the sums tell
    afterwards whether the range was left, in which case PyTorch's attention is used.
    """

    MAX_SCORES = 2**22
    """Scores that fit in a CPU's cache."""
    RANGE = 2.0**-100, 2.0**100
    """Sums within it prove that every weight that matters was representable in bfloat16."""

    def __init__(self, attention: FusedQKVAttention) -> None:
        super().__init__()
        self.heads, self.windows, self.output = attention.heads, attention.windows, attention.output
        qkv = attention.qkv
        weights = torch.cat((qkv.weight, qkv.bias[:, None]), dim=1).detach()
        query, key, value = weights.unflatten(0, (3, self.heads, -1))
        one = torch.zeros_like(value[:, :1])
        one[..., -1] = 1
        parts = [part.flatten(0, 1) for part in (query * math.log2(math.e), key, torch.cat((value, one), dim=1))]
        self.rows = [len(part) for part in parts]
        weight, bias = torch.cat(parts).split((qkv.in_features, 1), dim=1)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, D), window by window → the same shape."""
        batch, groups = x.shape[0], self.windows
        qkv = torch.baddbmm(self.bias, self.weight.expand(batch, -1, -1), x.transpose(1, 2))
        query, key, value = (
            part.view(batch, self.heads, -1, groups, part.shape[-1] // groups).transpose(2, 3).flatten(0, 2)
            for part in qkv.split(self.rows, dim=1)
        )
        mixed = self.mix(query, key.transpose(1, 2).contiguous(), value)
        mixed = mixed.view(batch, self.heads, groups, *mixed.shape[1:])
        return torch.as_tensor(self.output(mixed.permute(0, 2, 4, 1, 3).reshape(x.shape)))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Weighted mean of the values for each query.

        Args:
            query: (N, d, S), scaled for powers of two.
            key: (N, S, d).
            value: (N, d + 1, S), whose last row is one.

        Returns:
            (N, d, S).
        """
        count = max(32, self.MAX_SCORES // key[..., 0].numel() // 32 * 32)
        mixed = torch.cat([value @ (key @ some).exp2_() for some in query.split(count, dim=2)], dim=2)
        mixed, total = mixed[:, :-1], mixed[:, -1:]
        lowest, highest = total.aminmax()
        if self.RANGE[0] <= lowest and highest <= self.RANGE[1]:
            return mixed / total
        query, value = query.transpose(1, 2), value[:, :-1].transpose(1, 2)
        return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=math.log(2))[0].transpose(1, 2)
