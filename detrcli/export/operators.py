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


def attention(query: Any, key: Any, value: Any, *options: Any, scale: float | None = None, **more: Any) -> Any:
    """Attention as softmax(q · kᵀ · scale) · v, of (B, heads, S, d) each and without a mask."""
    if any(options) or any(more.values()):
        raise NotImplementedError(f"attention with {options} {more}")
    pieces = _pieces(query, value)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    query = query if scale == 1 else op.Mul(query, _number(scale, query))
    key = op.Transpose(key, perm=[0, 1, 3, 2])
    if pieces == 1:
        return _mixed(query, key, value)
    parts = (op.Split(one, axis=1, num_outputs=pieces) for one in (query, key, value))
    return op.Concat(*(_mixed(*some) for some in zip(*parts, strict=True)), axis=1)


def _mixed(query: Any, key: Any, value: Any) -> Any:
    return op.MatMul(op.Softmax(op.MatMul(query, key), axis=-1), value)


def _pieces(query: Any, value: Any) -> int:
    """Into how many pieces heads must be cut for one image's scores to stay in a cache, where sizes are known.

    Windows count as images, whose number a file need not fix.
    """
    sizes = [*query.shape[1:3], value.shape[2]]
    if not all(isinstance(size, int) for size in sizes):
        return 1
    heads, queries, keys = map(int, sizes)
    return math.ceil(heads / max(1, AT_ONCE // (queries * keys)))


def _number(value: float, like: Any) -> Any:
    """A constant of another value's type: by itself, the exporter only finds it beside what is in the program."""
    number: Any = ir.tensor(value, dtype=like.dtype)
    return op.Constant(value=number)
