"""Versions of ONNX's operators that a model can be exported in."""

from ..errors import UsageError

OPSETS = range(18, 24)
DEFAULT_OPSET = OPSETS[0]
"""ONNX Runtime runs all that is used of it on CUDA, where each operator is known only in some versions."""


def check_opset(opset: int) -> None:
    """Refuse a version in which nothing can be exported.

    Raises:
        UsageError: it is one.
    """
    if opset not in OPSETS:
        raise UsageError(f"--opset is one of {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
