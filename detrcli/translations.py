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

AT_ONCE = 2**21
"""Scores that a CPU's cache holds in float32."""


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
    queries, keys = op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2])
    pieces = _pieces(query.shape, key.shape)
    parts = op.Split(queries, axis=2, num_outputs=pieces) if pieces > 1 else [queries]
    mixed = [op.MatMul(op.Softmax(op.MatMul(part, keys), axis=-1), value) for part in parts]
    return op.Concat(*mixed, axis=2) if pieces > 1 else mixed[0]


def _pieces(query: Any, key: Any) -> int:
    """Into how many pieces queries must be cut for the scores of a picture's to stay in a cache, if that is known."""
    counts = query[1], query[2], key[2]
    return math.ceil(math.prod(counts) / AT_ONCE) if all(isinstance(count, int) for count in counts) else 1


def _number(value: float, like: Any) -> Any:
    """A constant of another value's type: by itself, the exporter only finds it beside what is in the program."""
    number: Any = ir.tensor(value, dtype=like.dtype)
    return op.Constant(value=number)
