"""An exported file reproduces its network's predictions, also in other runtimes."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import defs

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.errors import ExportError, OutputError, UsageError
from detrcli.export import DEFAULT_OPSET, OPSETS, operators
from detrcli.export import onnx as exporting
from detrcli.export.onnx import export_onnx
from detrcli.images.resize import Exactly, ShortestEdge
from detrcli.inference.torch import TorchBackend
from detrcli.models.lwdetr import LwDetr

from .. import fill
from ..places import DATA
from ..tiny import tiny_network
from ..training.small import small_lwdetr

CUDA: dict[str, Any] = json.loads((DATA / "cuda_kernels.json").read_text())
"""For each operator, the versions that have a kernel in ONNX Runtime's CUDA provider, and the types of the kernel for
`DEFAULT_OPSET` (from its OperatorKernels.md)."""


def detr() -> LoadedModel:
    names = tuple(f"thing {label}" for label in range(7))
    return LoadedModel("tiny", tiny_network(), names, Preprocessing(ShortestEdge(64, 96)))


def lwdetr() -> LoadedModel:
    """LW-DETR without tied scores, so that the best are the same in every runtime."""
    return without_ties(small_lwdetr())


def two_scales() -> LoadedModel:
    return without_ties(small_lwdetr(scales=(2, 0.5), points=4))


def without_ties(model: LoadedModel) -> LoadedModel:
    torch.manual_seed(1)
    for parameter in model.network.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    model.network.eval().requires_grad_(False)
    return model


MODELS = pytest.mark.parametrize("make", [detr, lwdetr, two_scales], ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export each model once per set of options."""
    folder, done = tmp_path_factory.mktemp("exported"), dict[str, Path]()

    def get(make: Callable[[], LoadedModel], **options: Any) -> Path:
        key = f"{make.__name__}-{'-'.join(f'{name}-{value}' for name, value in options.items())}"
        if key not in done:
            done[key] = export_onnx(make(), folder / f"{key}.onnx", source="tests", **options).path
        return done[key]

    return get


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@MODELS
@pytest.mark.parametrize("count", [1, 3])
def test_the_bare_network_gives_the_same_logits_and_boxes(
    make: Callable[[], LoadedModel], count: int, exported: Callable[..., Path]
) -> None:
    pixels = torch.from_numpy(np.stack([fill.image(seed, 128, 128) for seed in range(count)]))
    pixels = (pixels.permute(0, 3, 1, 2) / 255 - 0.45) / 0.23
    with torch.inference_mode():
        theirs = make().network(pixels)
    ours = session(exported(make, postprocess=False)).run(None, {"pixels": pixels.numpy()})
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-3)


@MODELS
def test_images_of_any_size_give_the_same_detections(
    make: Callable[[], LoadedModel], exported: Callable[..., Path]
) -> None:
    model = make()
    detector = detrcli.load(exported(make), device="cpu")
    backend = TorchBackend(copy.deepcopy(model), device="cpu", precision="fp32")
    rules = model.preprocessing
    reference = detrcli.Detector("tiny", [backend], model.class_names, rules.resize, rules.resample)
    images = [fill.image(seed, height, width) for seed, (height, width) in enumerate([(90, 70), (48, 200), (64, 64)])]
    compared = 0
    for ours, theirs in zip(
        detector.predict(images, threshold=0.05), reference.predict(images, threshold=0.05), strict=True
    ):
        assert ours.names == theirs.names
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
        compared += len(ours)
    assert compared > 10


@MODELS
def test_a_batch_gives_the_detections_of_single_images(
    make: Callable[[], LoadedModel], exported: Callable[..., Path]
) -> None:
    images = np.stack([fill.image(seed, 128, 128) for seed in range(3)])
    sizes = np.array([[100, 200], [300, 50], [128, 128]], np.float32)
    run = session(exported(make)).run
    together = run(None, {"images": images, "sizes": sizes})
    for one in range(3):
        alone = run(None, {"images": images[one : one + 1], "sizes": sizes[one : one + 1]})
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[one], part[0], atol=1e-3)


@MODELS
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_cuda_has_a_kernel_for_every_node(
    make: Callable[[], LoadedModel], precision: str, exported: Callable[..., Path]
) -> None:
    options: dict[str, Any] = {} if precision == "fp32" else {"precision": precision, "batch_size": 1}
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported(make, **options)), strict_mode=True).graph
    assert {node.domain for node in graph.node} == {""}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer} | {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)
    }
    assert [node for node in graph.node if not has_kernel(node, types, DEFAULT_OPSET)] == []


def has_kernel(node: onnx.NodeProto, types: Mapping[str, int], opset: int) -> bool:
    """Whether CUDA has a kernel for a node; a kernel without a last version only serves its first."""
    schema, kernels = defs.get_schema(node.op_type, opset), CUDA.get(node.op_type, {"versions": ()})
    for kernel in kernels["versions"]:
        first, _, last = kernel.rstrip("+").partition("-")
        if schema.since_version == int(first) or (last and int(first) <= schema.since_version <= int(last)):
            break
    else:
        return False
    for formal, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for place, name in enumerate(names):
            taken = kernels["types"].get(formal[min(place, len(formal) - 1)].type_str)
            if name and taken and onnx.TensorProto.DataType.Name(types[name]).lower() not in taken.split():
                return False
    return True


def test_types_without_a_kernel_are_noticed() -> None:
    node = onnx.helper.make_node("Where", ["choose", "one", "other"], ["taken"])
    kinds = onnx.TensorProto
    assert has_kernel(node, {"choose": kinds.BOOL} | dict.fromkeys(("one", "other", "taken"), kinds.INT64), 18)
    assert not has_kernel(node, {"choose": kinds.BOOL} | dict.fromkeys(("one", "other", "taken"), kinds.BOOL), 18)


@MODELS
def test_the_graph_has_nothing_redundant(make: Callable[[], LoadedModel], exported: Callable[..., Path]) -> None:
    graph = onnx.load(exported(make)).graph
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert [node.name for node in graph.node if not set(node.output) & used] == []
    assert [tensor.name for tensor in graph.initializer if tensor.name not in used] == []
    used_operators = {node.op_type for node in graph.node}
    assert used_operators & {"Identity", "Dropout", "BatchNormalization", "Constant", "If", "Loop"} == set()
    operations = [(node.op_type, *node.input, *(a.SerializeToString() for a in node.attribute)) for node in graph.node]
    assert len(operations) == len(set(operations))


@MODELS
@pytest.mark.parametrize("postprocess", [True, False])
def test_no_reshape_has_allowzero(
    make: Callable[[], LoadedModel], postprocess: bool, exported: Callable[..., Path]
) -> None:
    nodes = onnx.load(exported(make, postprocess=postprocess)).graph.node
    reshapes = [node for node in nodes if node.op_type == "Reshape"]
    assert reshapes
    assert [node.name for node in reshapes if any(one.name == "allowzero" for one in node.attribute)] == []


def test_opencv_runs_the_bare_network(exported: Callable[..., Path]) -> None:
    path = exported(lwdetr, postprocess=False, batch_size=1)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(pixels)
    ours = network.forward(["logits", "boxes"])
    for actual, expected in zip(ours, session(path).run(None, {"pixels": pixels}), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_onnx_runtime_fuses_gelu(exported: Callable[..., Path], tmp_path: Path) -> None:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(exported(lwdetr), settings, providers=["CPUExecutionProvider"])
    used_operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Erf" not in used_operators
    assert used_operators & {"Gelu", "BiasGelu"}


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_many_scores_are_computed_in_groups_of_heads(
    heads: int, exported: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for large images, here with groups of `heads` of the decoder's four heads."""
    whole = exported(lwdetr, postprocess=False)
    network = lwdetr().network
    assert isinstance(network, LwDetr)
    monkeypatch.setattr(operators, "MAX_SCORES", heads * network.config.num_queries**2)
    path = export_onnx(lwdetr(), tmp_path / "groups.onnx", source="tests", postprocess=False).path
    before, after = (sum(node.op_type == "Softmax" for node in onnx.load(one).graph.node) for one in (whole, path))
    layers = network.config.decoder_layers
    assert after >= before + layers * (math.ceil(network.config.self_heads / heads) - 1)
    pixels = fill.image(0, 128, 128).transpose(2, 0, 1)[None].astype(np.float32) / 255
    for actual, expected in zip(*(session(one).run(None, {"pixels": pixels}) for one in (path, whole)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_metadata(exported: Callable[..., Path]) -> None:
    model = onnx.load(exported(lwdetr))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["detrcli"] == detrcli.__version__
    assert metadata["source"] == "tests"
    assert json.loads(metadata["classes"]) == list(lwdetr().class_names)
    assert json.loads(metadata["preprocessing"])["size"] == {"height": 128, "width": 128}
    assert float(metadata["gflops"]) > 0
    (images, sizes), outputs = model.graph.input, [output.name for output in model.graph.output]
    assert outputs == ["boxes", "scores", "labels"]
    assert shape(images) == ["batch", 128, 128, 3]
    assert shape(sizes) == ["batch", 2]
    assert shape(onnx.load(exported(detr)).graph.input[0]) == ["batch", "height", "width", 3]


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_partial_batches_are_filled_up_to_the_fixed_size(exported: Callable[..., Path]) -> None:
    path = exported(lwdetr, batch_size=2)
    assert shape(onnx.load(path).graph.input[0])[0] == 2
    images = [fill.image(seed, 80, 60) for seed in range(3)]
    fixed, free = (detrcli.load(one, device="cpu") for one in (path, exported(lwdetr)))
    assert fixed.backend.batch_size == 2
    for batch_size in (1, 2, 3):
        for ours, theirs in zip(fixed.predict(images, batch_size=batch_size), free.predict(images), strict=True):
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


@pytest.mark.parametrize("opset", [OPSETS[0], 20, OPSETS[-1]])
def test_opsets(opset: int, exported: Callable[..., Path]) -> None:
    assert onnx.load(exported(lwdetr, opset=opset)).opset_import[0].version == opset


def test_half_precision(exported: Callable[..., Path]) -> None:
    demo = partial(load_checkpoint, find("demo"))
    demo.__name__ = "demo"  # type: ignore[attr-defined]
    path = exported(demo, precision="fp16", batch_size=1)
    assert path.stat().st_size < 0.6 * exported(demo).stat().st_size
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in types


def test_nothing_is_written_if_predictions_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the exporter had a bug: it writes other weights."""
    trace = exporting._trace

    def spoiled(*args: Any, **kwargs: Any) -> onnx.ModelProto:
        proto = trace(*args, **kwargs)
        for tensor in proto.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.5, tensor.name))
        return proto

    monkeypatch.setattr(exporting, "_trace", spoiled)
    with pytest.raises(ExportError, match=r"differ from PyTorch's by more than .*nothing was written"):
        export_onnx(lwdetr(), tmp_path / "x.onnx", source="tests")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("postprocess", [True, False])
def test_nothing_is_written_if_some_predictions_differ(
    postprocess: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter clipped small logits, or confused width and height."""
    trace = exporting._trace

    class Flawed(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, first: torch.Tensor, sizes: torch.Tensor | None = None) -> Any:
            if sizes is not None:
                return self.module(first, sizes.flip(1))
            logits, boxes = self.module(first)
            return logits.clamp(min=0.0), boxes

    monkeypatch.setattr(exporting, "_trace", lambda module, *more, **named: trace(Flawed(module), *more, **named))
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(detr(), tmp_path / "x.onnx", source="tests", postprocess=postprocess)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for opset in (OPSETS[0] - 1, OPSETS[-1] + 1):
        with pytest.raises(UsageError, match="opset must be from 18 to"):
            export_onnx(detr(), tmp_path / "x.onnx", source="tests", opset=opset)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(detr(), tmp_path / "file/x.onnx", source="tests")
    monkeypatch.setattr(exporting, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="larger than the 2 GB"):
        export_onnx(detr(), tmp_path / "x.onnx", source="tests")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_model_is_left_unchanged(tmp_path: Path) -> None:
    model = detr()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    export_onnx(model, tmp_path / "x.onnx", source="tests")
    after = model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_size_is_another_file(tmp_path: Path) -> None:
    model = lwdetr()
    larger = replace(model, preprocessing=Preprocessing(Exactly(192, 128)))
    path = export_onnx(larger, tmp_path / "x.onnx", source="tests").path
    assert shape(onnx.load(path).graph.input[0]) == ["batch", 128, 192, 3]
