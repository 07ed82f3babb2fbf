"""Export of a model to an ONNX file, which is checked against PyTorch before it is written."""

import ast
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.load import LoadedModel
from ..errors import ExportError, ExportSizeError, UsageError
from ..files import atomic_file
from ..images.resize import Padded, fixed_size
from ..inference.fuse import fuse
from ..inference.postprocess import EndToEnd, images_dtype, postprocess_for
from ..inference.torch import DTYPES, count_gflops
from . import DEFAULT_OPSET, OPSETS
from .compare import differences
from .metadata import OnnxMetadata
from .operators import operators
from .quiet import quiet

TOLERANCES = {"fp32": 1e-3, "fp16": 0.1}
"""Largest accepted difference from PyTorch in float32, of scores and of boxes relative to the image."""
MIN_MATCHING = {"fp32": 0.95, "fp16": 0.9}
"""Share of the predictions that must match; where proposals or classes tie, rounding decides which is chosen."""
MAX_BYTES = 2**31
"""Of an ONNX file."""
EXPORTER_LOGGERS = ("torch.onnx", "torch.export", "torch._guards", "onnxscript", "onnx_ir")
SCOPES = "pkg.torch.onnx.name_scopes"
"""PyTorch's note on a node: the names of the modules that it is in, and its own."""
TRACED_SIZE = (800, 608)
"""Width and height of the images to trace and compare with, where the file's size is dynamic."""


@dataclass(frozen=True)
class ExportResult:
    """Summary of an exported file.

    Attributes:
        path: of the file.
        nodes: number of nodes in its graph.
        bytes: its size.
        compared: number of predictions compared with PyTorch's.
        matching: number of these that match.
        difference: largest difference between matching predictions, of scores and of boxes relative to the image.
    """

    path: Path
    nodes: int
    bytes: int
    compared: int
    matching: int
    difference: float


class BareNetwork(nn.Module):
    """A network with float32 inputs and outputs, whatever its own dtype."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized pixels (B, 3, H, W) → logits (B, Q, C) and boxes (B, Q, 4) as relative cx, cy, w, h."""
        predictions = self.network(pixels.to(next(self.network.parameters()).dtype))
        return predictions.logits.float(), predictions.boxes.float()


def export_onnx(
    model: LoadedModel,
    path: Path,
    *,
    source: str,
    license: str = "",
    postprocess: bool = True,
    batch_size: int | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
    opset: int = DEFAULT_OPSET,
) -> ExportResult:
    """Export a fused network to an ONNX file of standard operators.

    Inputs are `images` (N, H, W, 3), RGB, resized, uint8 or, where resizing does not round, float32 in 0…255; `sizes`
    (N, 2) float32, the height and width of each image before it was resized; and for a model that pads images, `filled`
    (N, 2) float32, the height and width of each image without padding. Outputs are `boxes` (N, K, 4) as x1, y1, x2, y2
    in pixels of `sizes`, `scores` (N, K) and `labels` (N, K). Without postprocessing, the input is `pixels`
    (N, 3, H, W), normalized, and the outputs are `logits` (N, Q, C) and `boxes` (N, Q, 4) as relative cx, cy, w, h.

    Args:
        model: is left unchanged.
        path: of the file.
        source: of the weights, for the metadata.
        license: of the weights, for the metadata.
        postprocess: whether the file includes normalization and postprocessing.
        batch_size: N, or None for a dynamic one.
        precision: of the network.
        opset: version of the operator set.

    Raises:
        UsageError: the version of the operator set is not supported.
        ExportSizeError: the model is too large for an ONNX file.
        ExportError: the predictions in ONNX Runtime differ from those in PyTorch.
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as file:
        graph = trace(
            model,
            source=source,
            license=license,
            postprocess=postprocess,
            batch_size=batch_size,
            precision=precision,
            opset=opset,
        )
        content = graph.proto.SerializeToString()
        file.write(content)
    return ExportResult(
        path, len(graph.proto.graph.node), len(content), graph.compared, graph.matching, graph.difference
    )


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A model as an ONNX graph that has been compared with PyTorch.

    Attributes:
        proto: the graph; the name of each node begins with that of its PyTorch module.
        reference: the same in PyTorch, with postprocessing.
        compared: number of predictions compared with PyTorch's.
        matching: number of these that match.
        difference: largest difference between matching predictions, of scores and of boxes relative to the image.
    """

    proto: onnx.ModelProto
    reference: EndToEnd
    compared: int
    matching: int
    difference: float


def trace(
    model: LoadedModel,
    *,
    source: str,
    license: str,
    postprocess: bool,
    batch_size: int | None,
    precision: Literal["fp32", "fp16"],
    opset: int,
) -> TracedModel:
    """Turn a model into an ONNX graph and compare its predictions with PyTorch's; see `export_onnx`."""
    if opset not in OPSETS:
        raise UsageError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    network, rules = fuse(copy.deepcopy(model.network)), model.preprocessing
    reference = EndToEnd(network, postprocess_for(network), scale=rules.scale, mean=rules.mean, std=rules.std).eval()
    reduced = copy.deepcopy(reference)
    reduced.network.to(DTYPES[precision])
    module = reduced if postprocess else BareNetwork(reduced.network).eval()
    canvas = fixed_size(rules.resize)
    width, height = canvas or rules.resize.size(*TRACED_SIZE)
    if sum(value.numel() * value.element_size() for value in module.state_dict().values()) >= MAX_BYTES:
        raise ExportSizeError(f"{model.name} is larger than the 2 GB of an ONNX file")
    metadata = OnnxMetadata(
        version=__version__,
        name=model.name,
        source=source,
        license=license,
        form="detections" if postprocess else "raw",
        precision=precision,
        class_names=model.class_names,
        preprocessing=rules,
        gflops=count_gflops(network, height, width),
    )
    padded = postprocess and isinstance(rules.resize, Padded)
    dtype = images_dtype(rules.resample) if postprocess else None
    inputs = _inputs(dtype, batch_size, height, width, padded=padded)
    proto = _trace(module, inputs, batch_size=batch_size, fixed_size=canvas is not None, opset=opset)
    for key, value in metadata.to_strings().items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True), full_check=True)
    all_differences = differences(
        proto.SerializeToString(),
        reference,
        postprocess=postprocess,
        batch_size=batch_size,
        width=width,
        height=height,
        padded=padded,
        resample=rules.resample,
    )
    compared, matching = len(all_differences), all_differences[all_differences <= TOLERANCES[precision]]
    if not len(matching) or len(matching) < MIN_MATCHING[precision] * compared:
        raise ExportError(
            f"{compared - len(matching)} of {compared} predictions of ONNX Runtime differ from PyTorch's by more "
            f"than {TOLERANCES[precision]:g}; nothing was written"
        )
    return TracedModel(proto, reference, compared, len(matching), float(matching.max()))


def _inputs(
    dtype: torch.dtype | None, batch_size: int | None, height: int, width: int, *, padded: bool
) -> dict[str, Tensor]:
    count = batch_size or 2  # from a batch of one, the exporter would conclude that the size is always one
    if dtype is None:
        return {"pixels": torch.zeros(count, 3, height, width)}
    inputs = {"images": torch.zeros(count, height, width, 3, dtype=dtype), "sizes": torch.ones(count, 2)}
    return inputs | {"filled": torch.ones(count, 2)} if padded else inputs


def _trace(
    module: nn.Module, inputs: dict[str, Tensor], *, batch_size: int | None, fixed_size: bool, opset: int
) -> onnx.ModelProto:
    outputs = ["logits", "boxes"] if "pixels" in inputs else ["boxes", "scores", "labels"]
    batch: Any = torch.export.Dim("batch") if batch_size is None else None
    sides: tuple[Any, Any] = (None, None) if fixed_size else (torch.export.Dim("height"), torch.export.Dim("width"))
    dynamic = {
        "pixels": (batch, None, *sides),
        "images": (batch, *sides, None),
        "sizes": (batch, None),
        "filled": (batch, None),
    }
    with torch.inference_mode(), quiet(*EXPORTER_LOGGERS):
        module(*inputs.values())  # so that what the network caches for a size becomes a constant of the graph
    with torch.no_grad(), quiet(*EXPORTER_LOGGERS):
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(dynamic[name] for name in inputs),
            opset_version=opset,
            custom_translation_table=operators(opset),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _remove_allowzero(proto.graph)
    _name_nodes(proto.graph)
    proto.producer_name, proto.producer_version = "detrcli", __version__
    return proto


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name nodes by their PyTorch modules, and remove the exporter's notes, which have local paths."""
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        *modules, _ = ast.literal_eval(notes.get(SCOPES, "['', '']"))
        node.name = f"{modules[-1]}/{node.name.removeprefix('node_')}"
    for one in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output, graph):
        del one.metadata_props[:]


def _remove_allowzero(graph: onnx.GraphProto) -> None:
    """Remove an attribute of Reshape that some runtimes reject, where the shape has no zeros and it has no effect."""
    zeros = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.INT64 and not _nonzero(one)}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in zeros:
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _nonzero(tensor: onnx.TensorProto) -> bool:
    return bool(onnx.numpy_helper.to_array(tensor).all())
