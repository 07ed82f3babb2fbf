"""Quantization of ONNX graphs to int8.

NNCF quantizes, since its models keep their accuracy by a scale for each channel of the weights, and run fast in
OpenVINO. The graphs have ONNX's standard QDQ form, which ONNX Runtime runs, too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..telemetry import disable_openvino_telemetry
from .metadata import PRECISION_KEY
from .quiet import quiet

disable_openvino_telemetry()
import nncf  # noqa: E402

LOGGERS = ("nncf", "torch.utils.cpp_extension")
"""Of NNCF, and of what it loads to look for CUDA's compiler."""
QUANTIZED = ("backbone", "input_projection", "projector", "encoder")
"""Modules that multiply in int8: those that see the whole image, which take most of the time.

The others multiply in floating point, by weights that are kept in int8. They decide which proposals are selected, where
features are sampled, and on the boxes, which suffer most from rounding, and take little time.
"""
MAX_OPSET = 20
"""Of later ones, ONNX Runtime confuses the types of zero points when it optimizes a graph."""
MIN_TABLE = 16384
"""Size of constants from which on they are kept in float16, such as embeddings of positions."""


def quantize(graph: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]], count: int) -> onnx.ModelProto:
    """Quantize a graph in float32 whose nodes are named by their modules.

    Args:
        graph: is left unchanged.
        inputs: of the graph, for each of the images that ranges of values are found with; iterated over repeatedly.
        count: at least the number of these.
    """
    graph = _fold(graph)
    kept = [one.name for one in graph.graph.node if not any(f".{module}" in one.name for module in QUANTIZED)]
    with quiet(*LOGGERS):
        quantized: onnx.ModelProto = nncf.quantize(
            graph,
            nncf.Dataset(inputs),
            subset_size=count,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        )
        quantized = nncf.compress_weights(
            quantized,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(names=_products_without_weights(quantized.graph), validate=False),
        )
    del quantized.graph.value_info[:]
    _use_unsigned_zero_points(quantized.graph)
    _halve_tables(quantized.graph)
    for one in quantized.metadata_props:
        if one.key == PRECISION_KEY:
            one.value = "int8"
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _fold(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a graph without products of two constants, and without transposed weights, which NNCF fails on."""
    folded = onnx.ModelProto()
    folded.CopyFrom(graph)
    constants = {one.name: numpy_helper.to_array(one) for one in folded.graph.initializer}
    for node in graph.graph.node:
        if node.op_type not in ("MatMul", "Transpose") or not constants.keys() >= set(node.input):
            continue
        operands = [constants[name] for name in node.input]
        if node.op_type == "MatMul":
            value = np.matmul(*operands)
        else:
            value = operands[0].transpose(next((list(one.ints) for one in node.attribute), None))
        (name,) = node.output
        constants[name] = value
        folded.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        folded.graph.node.remove(node)
    _remove_unused(folded.graph)
    return folded


def _products_without_weights(graph: onnx.GraphProto) -> list[str]:
    """Names of the products with constants that are no matrices: of what is the same for all images."""
    others = {one.name for one in graph.initializer if len(one.dims) != 2}
    return [node.name for node in graph.node if node.op_type == "MatMul" and others.intersection(node.input)]


def _use_unsigned_zero_points(graph: onnx.GraphProto) -> None:
    """Make activations with a zero point unsigned, since OpenVINO computes wrongly with signed ones."""
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        zero = numpy_helper.to_array(constants[node.input[2]])
        if zero.dtype == np.int8 and zero.any():
            name = f"{node.name}_zero_point"
            graph.initializer.append(numpy_helper.from_array((zero.astype(np.int16) + 128).astype(np.uint8), name))
            for one in (node, *(other for other in graph.node if node.output[0] in other.input)):
                one.input[2] = name
    _remove_unused(graph)


def _halve_tables(graph: onnx.GraphProto) -> None:
    """Keep large constants of floating point in float16; runtimes turn them into float32 when they load the file."""
    casts = []
    for one in graph.initializer:
        if one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) >= MIN_TABLE:
            name, stored = one.name, f"{one.name}_float16"
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float16), stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _remove_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
