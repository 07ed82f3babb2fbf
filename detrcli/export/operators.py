"""Decompositions of PyTorch operators that older ONNX operator sets lack, in the form that runtimes recognize and fuse.

Those of PyTorch's exporter are correct, but ONNX Runtime does not recognize them: it runs GELU as five operators, and
copies the keys of an attention before it multiplies them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import ir
from onnxscript import opset18 as op

GELU_SINCE, ATTENTION_SINCE = 20, 23
"""The first operator sets that have them."""
MAX_SCORES = 2**21
"""Attention scores that fit in a CPU's cache in float32."""


def operators(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Decomposition of each PyTorch operator that an ONNX operator set lacks."""
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
    """Attention as softmax(q · kᵀ · scale) · v, without a mask; query, key and value are (B, heads, S, d)."""
    if any(options) or any(more.values()):
        raise NotImplementedError(f"attention with {options} {more}")
    pieces = _pieces(query, value)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    query = query if scale == 1 else op.Mul(query, _number(scale, query))
    key = op.Transpose(key, perm=[0, 1, 3, 2])
    if pieces == 1:
        return _attend(query, key, value)
    groups = (op.Split(one, axis=1, num_outputs=pieces) for one in (query, key, value))
    return op.Concat(*(_attend(*group) for group in zip(*groups, strict=True)), axis=1)


def _attend(query: Any, key: Any, value: Any) -> Any:
    return op.MatMul(op.Softmax(op.MatMul(query, key), axis=-1), value)


def _pieces(query: Any, value: Any) -> int:
    """Number of groups of heads whose scores of one image or window fit in a cache; one where sizes are dynamic."""
    sizes = [*query.shape[1:3], value.shape[2]]
    if not all(isinstance(size, int) for size in sizes):
        return 1
    heads, queries, keys = map(int, sizes)
    return math.ceil(heads / max(1, MAX_SCORES // (queries * keys)))


def _number(value: float, like: Any) -> Any:
    """Constant of the same type as another value, which the exporter does not infer by itself."""
    number: Any = ir.tensor(value, dtype=like.dtype)
    return op.Constant(value=number)
