"""An exported file reproduces its network's predictions, also in other runtimes."""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import defs
from PIL import Image

import detrcli
from detrcli.errors import ExportError, OutputError, UsageError
from detrcli.export import DEFAULT_OPSET, OPSETS, operators
from detrcli.export import onnx as exporting
from detrcli.export.onnx import export_onnx
from detrcli.images.resize import BilinearSampling
from detrcli.inference.torch import TorchBackend
from detrcli.models.transformer import Attention

from .. import fill
from ..exported import Exports, Make, detr, lwdetr, resized_rfdetr, rfdetr, table_transformer, two_scales, wide_lwdetr
from ..places import DATA

CUDA: dict[str, Any] = json.loads((DATA / "cuda_kernels.json").read_text())
"""For each operator, the versions that have a kernel in ONNX Runtime's CUDA provider, and the types of the kernel for
`DEFAULT_OPSET` (from its OperatorKernels.md)."""


TWO_SCALES = pytest.param(two_scales, marks=pytest.mark.slow)  # two exports, half a minute
TABLES = pytest.param(table_transformer, marks=pytest.mark.slow)  # two exports, with the operators of DETR
BARE_RFDETR = pytest.param(rfdetr, marks=pytest.mark.slow)  # another export
MODELS = pytest.mark.parametrize("make", [detr, lwdetr, rfdetr, TABLES, TWO_SCALES], ids=lambda make: make.__name__)
ALL_MODELS = pytest.mark.parametrize(
    "make", [detr, lwdetr, rfdetr, resized_rfdetr, TABLES, TWO_SCALES], ids=lambda make: make.__name__
)
BARE_MODELS = pytest.mark.parametrize(
    "make", [detr, lwdetr, BARE_RFDETR, TABLES, TWO_SCALES], ids=lambda make: make.__name__
)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@BARE_MODELS
@pytest.mark.parametrize("count", [1, 3])
def test_the_bare_network_gives_the_same_logits_and_boxes(make: Make, count: int, exported: Exports) -> None:
    pixels = torch.from_numpy(np.stack([fill.image(seed, 128, 128) for seed in range(count)]))
    pixels = (pixels.permute(0, 3, 1, 2) / 255 - 0.45) / 0.23
    with torch.inference_mode():
        theirs = make().network(pixels)
    ours = session(exported(make, postprocess=False)).run(None, {"pixels": pixels.numpy()})
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-3)


@ALL_MODELS
def test_images_of_any_size_give_the_same_detections(make: Make, exported: Exports) -> None:
    model = make()
    detector = detrcli.load(exported(make), device="cpu", engine="onnxruntime")
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
def test_a_batch_gives_the_detections_of_single_images(make: Make, exported: Exports) -> None:
    dtype = make().preprocessing.resample.dtype
    images = np.stack([fill.image(seed, 128, 128) for seed in range(3)]).astype(dtype)
    sizes = np.array([[100, 200], [300, 50], [128, 128]], np.float32)
    run = session(exported(make)).run
    together = run(None, {"images": images, "sizes": sizes})
    for one in range(3):
        alone = run(None, {"images": images[one : one + 1], "sizes": sizes[one : one + 1]})
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[one], part[0], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (detr, "fp32"),
        (lwdetr, "fp32"),
        (detr, "fp16"),
        *(pytest.param(two_scales, precision, marks=pytest.mark.slow) for precision in ("fp32", "fp16")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_cuda_has_a_kernel_for_every_node(make: Make, precision: str, exported: Exports) -> None:
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


def test_nodes_have_the_names_of_their_modules_and_no_traces_of_where_they_were_made(exported: Exports) -> None:
    content = exported(lwdetr).read_bytes()
    assert str(Path(detrcli.__file__).parent).encode() not in content
    assert b"pkg.torch" not in content
    names = [node.name for node in onnx.load_from_string(content).graph.node]
    assert len(set(names)) == len(names)
    assert {"network.backbone.embedding", "network.decoder.layers.1.cross_attention.offsets"} <= {
        name.partition("/")[0] for name in names
    }


@MODELS
def test_the_graph_has_nothing_redundant(make: Make, exported: Exports) -> None:
    graph = onnx.load(exported(make)).graph
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert [node.name for node in graph.node if not set(node.output) & used] == []
    assert [tensor.name for tensor in graph.initializer if tensor.name not in used] == []
    used_operators = {node.op_type for node in graph.node}
    assert used_operators & {"Identity", "Dropout", "BatchNormalization", "Constant", "If", "Loop"} == set()
    operations = [(node.op_type, *node.input, *(a.SerializeToString() for a in node.attribute)) for node in graph.node]
    assert len(operations) == len(set(operations))


@BARE_MODELS
@pytest.mark.parametrize("postprocess", [True, False])
def test_no_reshape_has_allowzero(make: Make, postprocess: bool, exported: Exports) -> None:
    nodes = onnx.load(exported(make, postprocess=postprocess)).graph.node
    reshapes = [node for node in nodes if node.op_type == "Reshape"]
    assert reshapes
    assert [node.name for node in reshapes if any(one.name == "allowzero" for one in node.attribute)] == []


def test_opencv_runs_the_bare_network(exported: Exports) -> None:
    path = exported(lwdetr, postprocess=False, batch_size=1)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(pixels)
    ours = network.forward(["logits", "boxes"])
    for actual, expected in zip(ours, session(path).run(None, {"pixels": pixels}), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_onnx_runtime_fuses_gelu(exported: Exports, tmp_path: Path) -> None:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(exported(lwdetr), settings, providers=["CPUExecutionProvider"])
    used_operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Erf" not in used_operators
    assert used_operators & {"Gelu", "BiasGelu"}


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_many_scores_are_computed_in_groups_of_heads(
    heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for large images, here with groups of `heads` of four heads."""
    torch.manual_seed(0)
    attention, x, inputs = Attention(32, 4, dropout=0).eval(), torch.randn(3, 20, 32), ("queries", "keys", "values")
    monkeypatch.setattr(operators, "MAX_SCORES", heads * 20**2)
    torch.onnx.export(
        attention,
        (x, x, x),
        tmp_path / "attention.onnx",
        dynamo=True,
        input_names=inputs,
        dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in inputs},
        opset_version=DEFAULT_OPSET,
        custom_translation_table=operators.operators(DEFAULT_OPSET),
        verbose=False,
    )
    nodes = onnx.load(tmp_path / "attention.onnx").graph.node
    assert sum(node.op_type == "Softmax" for node in nodes) == math.ceil(4 / heads)
    with torch.inference_mode():
        expected = attention(*(x[:2] for _ in inputs)).numpy()
    (actual,) = session(tmp_path / "attention.onnx").run(None, dict.fromkeys(inputs, x[:2].numpy()))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_metadata(exported: Exports) -> None:
    model = onnx.load(exported(lwdetr))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["detrcli"] == detrcli.__version__
    assert metadata["source"] == "tests"
    assert json.loads(metadata["classes"]) == list(lwdetr().class_names)
    rules = json.loads(metadata["preprocessing"])
    assert (rules["size"], rules["resample"]) == ({"height": 128, "width": 128}, Image.Resampling.BILINEAR)
    assert float(metadata["gflops"]) > 0
    (images, sizes), outputs = model.graph.input, [output.name for output in model.graph.output]
    assert outputs == ["boxes", "scores", "labels"]
    assert shape(images) == ["batch", 128, 128, 3]
    assert shape(sizes) == ["batch", 2]
    assert shape(onnx.load(exported(detr)).graph.input[0]) == ["batch", "height", "width", 3]


def test_images_that_are_not_rounded(exported: Exports) -> None:
    path = exported(rfdetr)
    assert onnx.load(path).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    detector = detrcli.load(path, device="cpu", engine="onnxruntime")
    image = Image.fromarray(fill.image(0, 300, 200))
    np.testing.assert_array_equal(detector.resized(image), BilinearSampling().resize(image, 128, 128))


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_partial_batches_are_filled_up_to_the_fixed_size(exported: Exports) -> None:
    path = exported(lwdetr, batch_size=2, opset=OPSETS[-1])
    assert shape(onnx.load(path).graph.input[0])[0] == 2
    images = [fill.image(seed, 80, 60) for seed in range(3)]
    fixed, free = (detrcli.load(one, device="cpu", engine="onnxruntime") for one in (path, exported(lwdetr)))
    assert fixed.backend.batch_size == 2
    for batch_size in (1, 2, 3):
        for ours, theirs in zip(fixed.predict(images, batch_size=batch_size), free.predict(images), strict=True):
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_opsets(exported: Exports) -> None:
    assert onnx.load(exported(lwdetr)).opset_import[0].version == DEFAULT_OPSET == OPSETS[0]
    assert onnx.load(exported(lwdetr, batch_size=2, opset=OPSETS[-1])).opset_import[0].version == OPSETS[-1]


@pytest.mark.slow  # another export, and so is `detr export` with this opset
def test_an_opset_in_between(exported: Exports) -> None:
    assert onnx.load(exported(lwdetr, opset=20)).opset_import[0].version == 20


def test_half_precision(exported: Exports) -> None:
    path = exported(detr, precision="fp16", batch_size=1)
    assert path.stat().st_size < 0.6 * exported(detr).stat().st_size
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in types


def test_nothing_is_written_if_predictions_differ(
    exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter had a bug: it writes other weights."""
    spoiled = without_metadata(onnx.load(exported(lwdetr)))
    for tensor in spoiled.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.5, tensor.name))
    monkeypatch.setattr(exporting, "_trace", lambda *_, **__: spoiled)
    with pytest.raises(ExportError, match=r"differ from PyTorch's by more than .*nothing was written"):
        export_onnx(lwdetr(), tmp_path / "x.onnx", source="tests")
    assert list(tmp_path.iterdir()) == []


def without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """As the exporter traced it."""
    del model.metadata_props[:]
    return model


@pytest.mark.parametrize("postprocess", [True, False])
def test_nothing_is_written_if_some_predictions_differ(
    postprocess: bool, exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter clipped small logits, or confused width and height."""
    proto = without_metadata(onnx.load(exported(detr, postprocess=postprocess)))
    monkeypatch.setattr(exporting, "_trace", lambda *_, **__: proto)
    export_onnx(detr(), tmp_path / "sound.onnx", source="tests", postprocess=postprocess)
    graph = without_metadata(proto).graph
    if postprocess:
        rename(graph, "sizes", "flipped", "input")
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "order"))
        graph.node.insert(0, onnx.helper.make_node("Gather", ["sizes", "order"], ["flipped"], axis=1))
    else:
        rename(graph, "logits", "whole", "output")
        graph.node.append(onnx.helper.make_node("Relu", ["whole"], ["logits"]))
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(detr(), tmp_path / "x.onnx", source="tests", postprocess=postprocess)
    assert [path.name for path in tmp_path.iterdir()] == ["sound.onnx"]


def rename(graph: onnx.GraphProto, name: str, new: str, end: Literal["input", "output"]) -> None:
    """Rename an input, or an output, of all nodes."""
    for node in graph.node:
        names = getattr(node, end)
        names[:] = [new if one == name else one for one in names]


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for opset in (OPSETS[0] - 1, OPSETS[-1] + 1):
        with pytest.raises(UsageError, match="opset must be from 18 to"):
            export_onnx(detr(), tmp_path / "x.onnx", source="tests", opset=opset)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(detr(), tmp_path / "file/x.onnx", source="tests")
    monkeypatch.setattr(exporting, "_trace", lambda *_, **__: pytest.fail("it was exported for nothing"))
    with pytest.raises(OutputError, match="File name too long"):
        export_onnx(detr(), tmp_path / f"{'a' * 260}.onnx", source="tests")
    monkeypatch.setattr(exporting, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="larger than the 2 GB"):
        export_onnx(detr(), tmp_path / "x.onnx", source="tests")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow  # another export, and `detr export` is tested with a size
def test_another_size(exported: Exports) -> None:
    assert shape(onnx.load(exported(wide_lwdetr)).graph.input[0]) == ["batch", 128, 192, 3]
