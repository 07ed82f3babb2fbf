"""ONNX backend: devices, damaged and foreign files, and no PyTorch."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.preprocessing import Preprocessing, as_json
from detrcli.errors import DeviceError, DeviceWarning, ModelError, OnnxSettingError
from detrcli.host import cuda_driver, threads
from detrcli.images.resize import ExactLongestEdge, Exactly, ShortestEdge
from detrcli.inference import onnx as backend

from .. import fill
from ..exported import Exports, detr, lwdetr
from ..fresh_process import RUN_MAIN, loaded

load = partial(detrcli.load, engine="onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, exported: Exports) -> Path:
    """A folder with `tiny.onnx` and `raw.onnx` of a small DETR, and `square.onnx` of a small LW-DETR."""
    place = tmp_path_factory.mktemp("onnx")
    shutil.copy(exported(detr), place / "tiny.onnx")
    shutil.copy(exported(detr, postprocess=False), place / "raw.onnx")
    shutil.copy(exported(lwdetr), place / "square.onnx")
    return place


def test_prediction_needs_no_pytorch(place: Path) -> None:
    Image.fromarray(fill.image(0, 80, 60)).save(place / "a.png")
    options = ("--device", "cpu", "--engine", "onnxruntime", "--format", "csv", "--format", "json")
    printed, modules = loaded(RUN_MAIN, "predict", "a.png", "--model", "tiny.onnx", *options, cwd=place)
    assert json.loads(printed)["model"] == "tiny"
    assert "onnxruntime" in modules
    assert modules & {"torch", "torchvision", "onnx", "safetensors", "huggingface_hub", "rich", "scipy"} == set()
    assert (place / "detections/a.png").is_file()


def test_sizes_of_a_file_of_dynamic_size(place: Path) -> None:
    image = fill.image(0, 90, 120)
    usual = load(place / "tiny.onnx", device="cpu")
    assert usual._resize == ShortestEdge(64, 96)
    same = load(place / "tiny.onnx", device="cpu", size=64)
    np.testing.assert_array_equal(usual.predict(image)[0].boxes, same.predict(image)[0].boxes)
    assert load(place / "tiny.onnx", device="cpu", size=(128, 96))._resize == Exactly(128, 96)
    assert len(load(place / "tiny.onnx", device="cpu", size=(128, 96)).predict(image, threshold=0)[0])


def test_sizes_of_a_table_transformer(place: Path) -> None:
    file = place / "table.onnx"
    save_with(file, place / "tiny.onnx", "preprocessing", json.dumps(as_json(Preprocessing(ExactLongestEdge(64, 96)))))
    assert detrcli.load(file, device="cpu")._resize == ExactLongestEdge(64, 96)
    assert detrcli.load(file, device="cpu", size=80)._resize == ExactLongestEdge(80, 80)
    assert detrcli.load(file, device="cpu", size=(128, 96))._resize == Exactly(128, 96)


def test_sizes_of_a_file_of_fixed_size(place: Path) -> None:
    for size in (128, (128, 128)):
        load(place / "square.onnx", device="cpu", size=size)
    for other in (192, (128, 192)):
        with pytest.raises(OnnxSettingError, match=r"square.onnx only takes 128 × 128 pixels"):
            load(place / "square.onnx", device="cpu", size=other)


def test_sizes_of_a_file_of_fixed_size_that_is_not_square(place: Path) -> None:
    file = place / "wide.onnx"
    save_with(file, place / "tiny.onnx", "preprocessing", json.dumps({"size": {"height": 128, "width": 192}}))
    model = onnx.load(file)
    redeclare(model.graph, "images", dims=["batch", 128, 192, 3])
    onnx.save(model, file)
    assert load(file, device="cpu", size=(192, 128))._resize == Exactly(192, 128)
    for other in (128, 192, (128, 192)):
        with pytest.raises(OnnxSettingError, match=r"wide.onnx only takes 192 × 128 pixels"):
            load(file, device="cpu", size=other)


def test_precision_is_that_of_the_file(place: Path) -> None:
    assert "fp32" in load(place / "tiny.onnx", device="cpu", precision="fp32").backend.description
    with pytest.raises(OnnxSettingError, match=r"tiny.onnx computes in fp32, not in fp16"):
        load(place / "tiny.onnx", device="cpu", precision="fp16")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x", ""])
def test_no_such_device(place: Path, device: str) -> None:
    with pytest.raises(DeviceError, match="runs on auto, cpu, cuda, cuda:N or tensorrt"):
        load(place / "tiny.onnx", device=device)


@pytest.mark.skipif(cuda_driver() is not None, reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_missing_gpu_is_an_error_unless_the_device_is_auto(place: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=r"no CUDA device|no support for"):
        load(place / "tiny.onnx", device=device)
    assert load(place / "tiny.onnx").backend.description == "cpu, ONNX Runtime, fp32"


def test_a_gpu_that_does_not_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a driver, but without the libraries of the CUDA provider."""
    monkeypatch.setattr(backend, "cuda_driver", object)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [backend.CUDA, backend.CPU])
    with pytest.warns(DeviceWarning, match="running on the CPU"):
        detector = load(place / "tiny.onnx")
    assert len(detector.predict(fill.image(0, 80, 60), threshold=0)[0])
    with pytest.raises(DeviceError, match="could not start cuda"):
        load(place / "tiny.onnx", device="cuda")


def test_a_gpu_that_fails_is_distinguished_from_a_damaged_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = onnxruntime.InferenceSession

    def session(path: Any, options: Any, *, providers: list[Any], **more: Any) -> Any:
        if providers != [backend.CPU]:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        return original(path, options, providers=providers, **more)

    monkeypatch.setattr(backend, "cuda_driver", object)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [backend.CUDA, backend.CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.warns(DeviceWarning, match=r"could not start cuda .*no CUDA-capable device.*running on the CPU"):
        load(place / "tiny.onnx")
    with pytest.raises(DeviceError, match="could not start cuda"):
        load(place / "tiny.onnx", device="cuda")
    (place / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot read"):
        load(place / "damaged.onnx", device="cuda")
    assert capsys.readouterr().out == ""


def test_the_suffix_may_be_in_capitals(place: Path) -> None:
    (place / "TINY.ONNX").write_bytes((place / "tiny.onnx").read_bytes())
    assert "ONNX" in load(place / "TINY.ONNX", device="cpu").backend.description


def test_messages_about_missing_libraries_do_not_reach_stdout(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend, "cuda_driver", object)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [backend.CUDA, backend.CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas.so"))
    with pytest.warns(DeviceWarning, match="running on the CPU"):
        load(place / "tiny.onnx")
    assert capsys.readouterr().out == ""


def test_damaged_and_foreign_files(place: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", [value], [result])
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(foreign, place / "foreign.onnx")
    (place / "text.onnx").write_text("this is no model")
    (place / "empty.onnx").write_bytes(b"")
    whole = (place / "tiny.onnx").read_bytes()
    (place / "half.onnx").write_bytes(whole[: len(whole) // 2])
    save_with(place / "odd.onnx", place / "tiny.onnx", "classes", "{")
    save_with(place / "numbers.onnx", place / "tiny.onnx", "classes", "[1]")
    save_with(place / "rules.onnx", place / "tiny.onnx", "preprocessing", "[1]")
    foreign.metadata_props.extend(onnx.load(place / "tiny.onnx").metadata_props)
    onnx.save(foreign, place / "disguised.onnx")
    fewer = onnx.load(place / "tiny.onnx")
    del fewer.graph.output[1]
    onnx.save(fewer, place / "fewer.onnx")
    for name, complaint in (
        ("foreign", "was not exported by detrcli"),
        ("text", "cannot read"),
        ("empty", "cannot read"),
        ("half", "cannot read"),
        ("odd", "this version does not understand it"),
        ("numbers", "this version does not understand it"),
        ("rules", "this version does not understand it"),
        ("fewer", "has unexpected inputs or outputs"),
        ("disguised", "has unexpected inputs or outputs"),
        ("raw", "exported without postprocessing"),
        ("absent", "no such file"),
    ):
        with pytest.raises(ModelError, match=complaint) as caught:
            load(place / f"{name}.onnx", device="cpu")
        assert len(str(caught.value).splitlines()) == 1
        assert f"{name}.onnx" in str(caught.value)


def save_with(target: Path, source: Path, key: str, value: str) -> None:
    """Save a copy of a file with a changed entry in its metadata."""
    model = onnx.load(source)
    next(entry for entry in model.metadata_props if entry.key == key).value = value
    onnx.save(model, target)


def test_a_file_that_names_too_few_classes(place: Path) -> None:
    save_with(place / "few.onnx", place / "tiny.onnx", "classes", '["one"]')
    detector = load(place / "few.onnx", device="cpu")
    with pytest.raises(ModelError, match=r"few.onnx finds classes that it has no names for; export it anew"):
        detector.predict([fill.image(seed, 80, 60) for seed in range(4)], threshold=0)


DEEP = "[" * 200_000
"""Deeper than any JSON parser allows."""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", DEEP),
        ("preprocessing", DEEP.replace("[", '{"a":')),
        ("preprocessing", json.dumps({"size": 10**400})),
        ("preprocessing", json.dumps({"size": 10**10})),
        ("preprocessing", json.dumps({"rescale_factor": 10**400})),
        ("preprocessing", '{"rescale_factor": Infinity}'),
        ("preprocessing", '{"image_mean": [0, 0, NaN]}'),
        ("preprocessing", json.dumps({"image_std": [1, 1, 0]})),
        ("preprocessing", json.dumps({"resample": 10**400})),
        ("preprocessing", json.dumps({"size": {"height": 64, "width": 96}})),
        ("preprocessing", json.dumps({"size": 64, "max_size": 64, "pad_size": {"height": 64, "width": 64}})),
        ("gflops", "nan"),
        ("gflops", "1e999"),
        ("form", "\n"),
        ("precision", "fp64"),
        ("detrcli", "\n" * 10_000),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_metadata(place: Path, key: str, value: str) -> None:
    save_with(place / "invalid.onnx", place / "tiny.onnx", key, value)
    if key == "detrcli":
        save_with(place / "invalid.onnx", place / "invalid.onnx", "classes", "{")
    with pytest.raises(ModelError, match=r"invalid.onnx (has unexpected|was exported by) [^\n]{1,160}$"):
        load(place / "invalid.onnx", device="cpu")


def test_long_class_names_are_cut(place: Path) -> None:
    names = ["x" * 1_000_000, "two\nlines\x1b[31m", *map(str, range(5))]
    save_with(place / "long.onnx", place / "tiny.onnx", "classes", json.dumps(names))
    first, second, *_ = load(place / "long.onnx", device="cpu").class_names
    assert first == "x" * 199 + "…"
    assert second == "two lines [31m"


def redeclare(graph: onnx.GraphProto, name: str, *, kind: int | None = None, dims: list[Any] | None = None) -> None:
    """Change the declared type or shape of an input or output."""
    value = next(value for value in (*graph.input, *graph.output) if value.name == name)
    tensor = value.type.tensor_type
    if dims is None:
        dims = [side.dim_param or side.dim_value for side in tensor.shape.dim]
    value.CopyFrom(helper.make_tensor_value_info(name, tensor.elem_type if kind is None else kind, dims))


def replace_outputs(graph: onnx.GraphProto, **outputs: NDArray[Any]) -> None:
    """Replace outputs by constants."""
    for name, value in outputs.items():
        for node in graph.node:
            node.output[:] = [f"former_{one}" if one == name else one for one in node.output]
        graph.initializer.append(numpy_helper.from_array(value, f"constant_{name}"))
        graph.node.append(helper.make_node("Identity", [f"constant_{name}"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        redeclare(graph, name, kind=kind, dims=list(value.shape))


BOXES, SCORES, LABELS = np.zeros((1, 5, 4), np.float32), np.full((1, 5), 0.9, np.float32), np.zeros((1, 5), np.int64)


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ({"boxes": BOXES[0, 0, 0]}, "has unexpected inputs or outputs"),
        ({"scores": SCORES[0, 0]}, "has unexpected inputs or outputs"),
        ({"labels": np.array([["a"] * 5], object)}, "has unexpected inputs or outputs"),
        ({"labels": LABELS.astype(np.int32)}, "has unexpected inputs or outputs"),
        ({"scores": SCORES.astype(np.float64)}, "has unexpected inputs or outputs"),
        ({"boxes": BOXES[..., :3]}, "has outputs of unexpected shapes"),
        ({"scores": SCORES[:, :4]}, "has outputs of unexpected shapes"),
        ({"boxes": np.tile(BOXES, (2, 1, 1))}, "has outputs of unexpected shapes"),
        ({"boxes": BOXES + np.nan, "scores": SCORES, "labels": LABELS}, "gives invalid scores or boxes"),
        ({"boxes": BOXES + np.inf, "scores": SCORES, "labels": LABELS}, "gives invalid scores or boxes"),
        ({"boxes": BOXES, "scores": SCORES + np.nan, "labels": LABELS}, "gives invalid scores or boxes"),
        ({"boxes": BOXES, "scores": SCORES + np.inf, "labels": LABELS}, "gives invalid scores or boxes"),
        ({"boxes": BOXES, "scores": SCORES * 100, "labels": LABELS}, "gives invalid scores or boxes"),
        ({"boxes": BOXES, "scores": SCORES, "labels": LABELS - 1}, "no names for"),
        ({"boxes": BOXES, "scores": SCORES, "labels": LABELS + 7}, "no names for"),
    ],
)
def test_a_file_with_invalid_outputs(place: Path, outputs: dict[str, NDArray[Any]], complaint: str) -> None:
    model = onnx.load(place / "tiny.onnx")
    replace_outputs(model.graph, **outputs)
    onnx.save(model, place / "nonsense.onnx")
    with pytest.raises(ModelError, match=rf"nonsense.onnx [^\n]*{complaint}[^\n]*$"):
        load(place / "nonsense.onnx", device="cpu").predict(fill.image(0, 80, 60), threshold=0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"kind": TensorProto.FLOAT}),
        ("images", {"dims": ["batch", "height", "width"]}),
        ("images", {"dims": ["batch", "height", "width", 4]}),
        ("images", {"dims": ["batch", 64, "width", 3]}),
        ("images", {"dims": ["batch", 64, 96, 3]}),
        ("images", {"dims": [0, "height", "width", 3]}),
        ("sizes", {"kind": TensorProto.INT64}),
        ("sizes", {"dims": [2]}),
    ],
    ids=str,
)
def test_a_file_with_unexpected_inputs(place: Path, name: str, change: dict[str, Any]) -> None:
    model = onnx.load(place / "tiny.onnx")
    redeclare(model.graph, name, **change)
    onnx.save(model, place / "other.onnx")
    with pytest.raises(ModelError, match=r"other.onnx[^\n]*$"):
        load(place / "other.onnx", device="cpu").predict(fill.image(0, 80, 60), threshold=0)


def test_a_file_that_cannot_be_opened(place: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*gone.onnx: No such file"):
        backend._session(place / "gone.onnx", [backend.CPU])


def test_onnx_runtime_sends_no_telemetry(place: Path, tmp_path: Path) -> None:
    """Otherwise, it stores an identifier and pending reports in files."""
    Image.fromarray(fill.image(0, 80, 60)).save(tmp_path / "a.png")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    options = ("--model", place / "tiny.onnx", "--device", "cpu", "--engine", "onnxruntime")
    subprocess.run(
        [sys.executable, "-m", "detrcli", "predict", "a.png", *options],
        cwd=tmp_path,
        env={**kept, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    assert {one.name for one in tmp_path.rglob("*")} == {"a.png", "detections", ".detr", "written"}


def test_an_onnx_file_cannot_be_trained(place: Path) -> None:
    with pytest.raises(ModelError, match="can only predict"):
        detrcli.load_model(place / "tiny.onnx")


def test_number_of_threads_is_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    for invalid in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", invalid)
        assert threads() >= 1


def test_threads_are_divided_until_no_backend_is_shared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    onnx_backend = backend.OnnxBackend(find(str(place / "tiny.onnx")), device="cpu")

    def threads_of_a_run() -> int:
        return int(onnx_backend._session.get_session_options().intra_op_num_threads)

    with ExitStack() as one, ExitStack() as other:
        one.enter_context(onnx_backend.shared())
        other.enter_context(onnx_backend.shared())
        one.close()
        assert threads_of_a_run() == 1
    assert threads_of_a_run() == 2


@pytest.mark.gpu
def test_a_gpu_gives_the_detections_of_the_cpu(exported: Exports) -> None:
    images = [fill.image(seed, 200, 300) for seed in range(4)]
    file = exported.demo()[0]
    here = load(file, device="cpu").predict(images, threshold=0.05)
    detector = load(file, device="cuda")
    assert detector.backend.description.startswith("cuda")
    for ours, theirs in zip(detector.predict(images, threshold=0.05, batch_size=4), here, strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)
