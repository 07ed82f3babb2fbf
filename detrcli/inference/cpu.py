"""What a folded network becomes on a CPU: equal to it up to rounding, in the shape of the CPU's fastest kernels.

A network is changed in place, and stays on the CPU from then on.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.vit import WINDOWS, Block
from .fuse import FusedQKVAttention


def pack_linears(network: nn.Module) -> None:
    """Let each linear layer keep its weights in the order in which oneDNN multiplies with them.

    Otherwise it reorders them for each product in bfloat16; in float32 PyTorch asks MKL, which is slow on CPUs that are
    not Intel's. Layers whose dtype this CPU does not compute in stay as they are, all of them where PyTorch was built
    without oneDNN; those that are packed keep their dtype, and can be neither copied nor saved.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and _packs(child.weight.dtype):
                setattr(module, name, PackedLinear(child))


class PackedLinear(nn.Module):
    """A linear layer whose weights lie in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)."""
        return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))


def flop_formulas() -> dict[Callable[..., object], Callable[..., int]]:
    """For PyTorch's counter of operations: what it does not know of this form."""
    return {torch.ops.mkldnn._linear_pointwise: _products} if _packs(torch.float32) else {}


def _products(x: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * x[-1] * math.prod(out_shape)


def _packs(dtype: torch.dtype) -> bool:
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operators, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(operators._is_mkldnn_bf16_supported()))


def use_exp2_attention(network: nn.Module) -> None:
    """Let the blocks of a folded ViT attend by powers of two.

    For bfloat16, in which PyTorch's own attention converts to float32 and back; not for float16, whose range is small.
    Best while the network is in float32, lest its weights be rounded twice.
    """
    for module in list(network.modules()):
        if isinstance(module, Block):
            assert isinstance(module.attention, FusedQKVAttention)
            module.attention = Exp2Attention(module.attention)


class Exp2Attention(nn.Module):
    """`FusedQKVAttention` whose softmax is 2 to the power of each score, over their sum.

    Tokens stand in columns, as the products with queries and values take them. A further value, which is always one,
    sums the powers. The largest score is not taken off first, as softmax does lest numbers leave their range: that they
    have not is seen by the sums afterwards.
    """

    AT_ONCE = 2**22
    """Scores that a CPU's cache holds."""
    RANGE = 2.0**-100, 2.0**100
    """Between these a sum tells that every power that matters to it is a number of bfloat16."""

    def __init__(self, attention: FusedQKVAttention) -> None:
        super().__init__()
        self.heads, self.window, self.output = attention.heads, attention.window, attention.output
        joint = attention.joint
        weights = torch.cat((joint.weight, joint.bias[:, None]), dim=1).detach()
        query, key, value = weights.unflatten(0, (3, self.heads, -1))
        one = torch.zeros_like(value[:, :1])
        one[..., -1] = 1
        parts = [part.flatten(0, 1) for part in (query * math.log2(math.e), key, torch.cat((value, one), dim=1))]
        self.rows = [len(part) for part in parts]
        weight, bias = torch.cat(parts).split((joint.in_features, 1), dim=1)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, D), window by window → the same shape."""
        batch, groups = x.shape[0], WINDOWS**2 if self.window else 1
        joint = torch.baddbmm(self.bias, self.weight.expand(batch, -1, -1), x.transpose(1, 2))
        query, key, value = (
            part.view(batch, self.heads, -1, groups, part.shape[-1] // groups).transpose(2, 3).flatten(0, 2)
            for part in joint.split(self.rows, dim=1)
        )
        mixed = self.mix(query, key.transpose(1, 2).contiguous(), value)
        mixed = mixed.view(batch, self.heads, groups, *mixed.shape[1:])
        return torch.as_tensor(self.output(mixed.permute(0, 2, 4, 1, 3).reshape(x.shape)))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The mean of all values for each query, weighed by the powers of two.

        Args:
            query: (N, d, S), scaled so that a score is the power.
            key: (N, S, d).
            value: (N, d + 1, S), the last of which is one.

        Returns:
            (N, d, S).
        """
        count = max(32, self.AT_ONCE // key[..., 0].numel() // 32 * 32)
        mixed = torch.cat([value @ (key @ some).exp2_() for some in query.split(count, dim=2)], dim=2)
        mixed, total = mixed[:, :-1], mixed[:, -1:]
        lowest, highest = total.aminmax()
        if self.RANGE[0] <= lowest and highest <= self.RANGE[1]:
            return mixed / total
        query, value = query.transpose(1, 2), value[:, :-1].transpose(1, 2)
        return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=math.log(2))[0].transpose(1, 2)
