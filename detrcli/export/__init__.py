"""Export of a model to one file for other runtimes."""

OPSETS = range(18, 24)
"""Supported versions of ONNX's operator set."""
DEFAULT_OPSET = 18
"""ONNX Runtime has CUDA kernels for all operators that are used in it; newer versions of some have none."""
