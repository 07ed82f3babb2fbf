"""PyTorch's operators that older versions of ONNX have no word for, written out so that runtimes know them again.

What PyTorch's exporter writes for them is right, but ONNX Runtime does not see what it stands for: it takes GELU in
five passes instead of one, and copies the keys of an attention before it multiplies them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir
from onnxscript import opset18 as op

GELU_SINCE, ATTENTION_SINCE = 20, 23
"""The versions from which on they are operators of their own."""


def translations(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What to write for which of PyTorch's operators in a version of ONNX's."""
    table: dict[Callable[..., Any], Callable[..., Any]] = {}
    if opset < GELU_SINCE:
        table[torch.ops.aten.gelu.default] = gelu
    if opset < ATTENTION_SINCE:
        table[torch.ops.aten.scaled_dot_product_attention.default] = attention
    return table


def gelu(x: Any, approximate: str = "none") -> Any:
    """GELU of x as x · (1 + erf(x / √2)) · ½, in this order."""
    if approximate != "none":
        raise NotImplementedError(f"GELU by {approximate}")
    root, one, half = (_number(value, x) for value in (math.sqrt(2), 1.0, 0.5))
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


def attention(query: Any, key: Any, value: Any, *options: Any, **more: Any) -> Any:
    """Attention as softmax(q · kᵀ / √d) · v, of (B, heads, S, d) each and without a mask."""
    if any(options) or any(more.values()):
        raise NotImplementedError(f"attention with {options} {more}")
    scale = _number(1 / math.sqrt(query.shape[-1]), query)
    scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _number(value: float, like: Any) -> Any:
    """A constant of another value's type: by itself, the exporter only finds it beside what is in the program."""
    number: Any = ir.tensor(value, dtype=like.dtype)
    return op.Constant(value=number)
