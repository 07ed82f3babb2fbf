"""Export to int8: what is quantized, the choice of images, the comparison with float32, and the command."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

import detrcli
from detrcli.datasets import Example, read_dataset
from detrcli.datasets.unlabeled import read_unlabeled
from detrcli.detections import Detections
from detrcli.errors import ImageError, Int8LossError, UsageError
from detrcli.export import int8
from detrcli.export.int8 import MAX_CALIBRATION_IMAGES, MAX_COMPARED_IMAGES, CalibrationInputs, agreement, export_int8
from detrcli.export.quantization import MAX_OPSET, QUANTIZED, quantize

from .. import fill, scenes
from ..detr_process import detr as detr_command
from ..detr_process import python
from ..exported import Exports, Make, demo, detr, lwdetr, padded_lwdetr, rfdetr, table_transformer, two_scales
from ..fresh_process import loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 24 images, of which the last cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(23):
        Image.fromarray(fill.image(seed, 90, 120 + seed % 3)).save(folder / f"{seed:02}.png")
    (folder / "23.png").write_bytes(b"no image")
    return folder


def inputs(file: Path, folder: Path) -> CalibrationInputs:
    detector = detrcli.load(file, device="cpu", engine="onnxruntime")
    return CalibrationInputs(detector, read_unlabeled(folder).examples[:6], lambda _: None, lambda *_: None)


ENGINES: Sequence[tuple[Any, Any]] = (("onnxruntime", "auto"), ("openvino", "fp32"))
SLOW = [
    pytest.param(make, options, marks=pytest.mark.slow)  # half a minute each, if it has to be exported first
    for make, options in (
        (table_transformer, {}),
        (padded_lwdetr, {}),
        (rfdetr, {}),
        (two_scales, {}),
        (detr, {"batch_size": 2}),
        (lwdetr, {"batch_size": 2}),
        (detr, {"opset": MAX_OPSET}),
    )
]


@pytest.mark.parametrize(("make", "options"), [(detr, {}), (lwdetr, {}), *SLOW])
def test_what_sees_the_whole_image_is_quantized(
    make: Make, options: dict[str, Any], exported: Exports, folder: Path, tmp_path: Path
) -> None:
    original = onnx.load(exported(make, **options))
    quantized = quantize(original, inputs(exported(make, **options), folder), 6)
    graph = quantized.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    rounded = {one.output[0] for one in graph.node if one.op_type == "QuantizeLinear"}
    sources = {one.output[0]: one.input[0] for one in graph.node if one.op_type == "DequantizeLinear"}
    in_int8 = 0
    for node in graph.node:
        operands = [sources.get(name, name) for name in node.input[:2]]
        if node.op_type in ("MatMul", "Conv", "Gemm") and all(one in rounded | constants.keys() for one in operands):
            assert any(f".{module}" in node.name for module in QUANTIZED)
            assert constants[operands[1]].dtype == np.int8 if operands[1] in constants else True
            in_int8 += 1
        elif any(one in rounded for one in operands):
            assert any(f".{module}" in node.name for module in QUANTIZED) or node.op_type == "DequantizeLinear"
    assert in_int8 > 5
    matrices = [value for value in constants.values() if value.dtype == np.float32 and value.size >= 4096]
    assert sum(one.size for one in matrices) < 0.1 * sum(
        numpy_helper.to_array(x).size for x in original.graph.initializer
    )

    path = tmp_path / "int8.onnx"
    onnx.save(quantized, path)
    image = fill.image(50, 90, 120)
    runs = [detrcli.load(path, device="cpu", engine=engine, precision=precision) for engine, precision in ENGINES]
    assert [run.backend.precision for run in runs] == ["int8", "int8+fp32"]
    exact = detrcli.load(exported(make, **options), device="cpu", engine="onnxruntime").predict(image, threshold=0)[0]
    found = [run.predict(image, threshold=0)[0] for run in runs]
    assert np.abs(found[0].scores[:3] - found[1].scores[:3]).max() < 0.1
    for one in found:
        assert len(one) == len(exact)
        assert 0 < np.abs(one.scores[:3] - exact.scores[:3]).max() < 0.25


def test_a_transposed_weight_of_two_products(exported: Exports, folder: Path) -> None:
    """As PyTorch exports the values of two scales, which share their weights, in large models."""
    model = onnx.load(exported(lwdetr))
    graph = model.graph
    first, second = (node for node in graph.node if re.search(r"decoder.*self_attention.output/MatMul", node.name))
    (weight,) = (one for one in graph.initializer if one.name == first.input[1])
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.T), weight.name))
    graph.node.insert(0, onnx.helper.make_node("Transpose", [weight.name], ["transposed"], "one", perm=[1, 0]))
    first.input[1] = second.input[1] = "transposed"
    quantized = quantize(model, inputs(exported(lwdetr), folder), 6).graph
    assert not [node for node in quantized.node if node.name == "one"]
    stored = {one.name: numpy_helper.to_array(one) for one in quantized.initializer}
    for name in (first.name, second.name):
        (product,) = (node for node in quantized.node if node.name == name)
        (dequantized,) = (node for node in quantized.node if node.output[0] == product.input[1])
        assert stored[dequantized.input[0]].dtype == np.int8
        scales = stored[dequantized.input[1]]
        assert np.abs(stored[dequantized.input[0]] * scales - values).max() <= scales.max()


@given(st.integers(20, 4000))
def test_images_that_calibrate_are_not_compared(count: int) -> None:
    empty: Any = np.empty(0)
    examples = [Example(Path(str(one)), one, 0, 0, empty, empty, empty, empty) for one in range(count)]
    calibration, others = int8.split(examples)
    assert len(calibration) == min(count // 2, MAX_CALIBRATION_IMAGES)
    assert len(others) == min(count - len(calibration), MAX_COMPARED_IMAGES)
    chosen = [one.image_id for one in (*calibration, *others)]
    assert len(set(chosen)) == len(chosen)
    for part in (calibration, others):
        gaps = np.diff([int(one.image_id) for one in part])
        assert (gaps > 0).all()
        assert gaps.max() <= 2 * count / len(part) + 1


def test_images_that_cannot_be_read_do_not_calibrate(exported: Exports, folder: Path) -> None:
    detector = detrcli.load(exported(lwdetr, batch_size=2), device="cpu", engine="onnxruntime")
    examples = read_unlabeled(folder).examples[20:]
    told: list[ImageError] = []
    values = CalibrationInputs(detector, examples, told.append, lambda *_: None)
    for _ in range(2):
        assert [one["images"].shape for one in values] == [(2, 128, 128, 3)] * 3
    assert values.readable == [*examples[:3]]
    assert [str(one) for one in told] == [f"{folder / '23.png'}: not an image, or in an unsupported format"]


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Boxes 10 pixels wide: x1, score and label of each."""
    boxes = np.array([(left, 0, left + 10, 10) for left, _, _ in rows], np.float32).reshape(-1, 4)
    scores, labels = np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)
    return Detections(boxes, scores, labels, ("thing",) * len(rows), 100, 100)


def test_agreement() -> None:
    expected = detections((0, 0.9, 1), (30, 0.8, 1), (60, 0.7, 2), (80, 0.6, 1), (0, 0.4, 1))
    found = detections((1, 0.85, 1), (0, 0.3, 1), (36, 0.9, 1), (60, 0.9, 1), (60, 0.5, 2))
    matched, differences = agreement([expected, detections()], [found, detections((0, 0.9, 1))])
    assert matched.tolist() == [True, False, True, False]
    assert differences == pytest.approx([0.05, 0.2])


def test_an_opset_that_onnx_runtime_fails_on(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^opset must be at most 20 for int8, not 21$"):
        export_int8(lwdetr(), tmp_path / "x.onnx", read_unlabeled(folder), source="tests", opset=21)


def test_too_few_images(tmp_path: Path, folder: Path) -> None:
    few = read_unlabeled(folder)
    few = replace(few, examples=few.examples[:19])
    with pytest.raises(UsageError, match=r"has 19 images; int8 needs 20, better hundreds$"):
        export_int8(lwdetr(), tmp_path / "x.onnx", few, source="tests")
    assert not [*tmp_path.iterdir()]


def test_images_of_which_none_can_be_read(exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "trace", lambda *_, **__: SimpleNamespace(proto=onnx.load(exported(lwdetr))))
    for number in range(24):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    told: list[ImageError] = []
    with pytest.raises(UsageError, match=r" has too few images that can be read$"):
        export_int8(lwdetr(), tmp_path / "x.onnx", read_unlabeled(tmp_path), source="tests", on_unreadable=told.append)
    assert len(told) == 12
    assert not (tmp_path / "x.onnx").exists()


def test_a_file_that_loses_accuracy_is_not_written(
    exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: onnx.ModelProto, inputs: CalibrationInputs, count: int) -> onnx.ModelProto:
        (bias,) = (one for one in graph.graph.initializer if one.name == "network.box_head.layers.2.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
        return graph

    traced = SimpleNamespace(proto=onnx.load(exported.demo()[0]))
    monkeypatch.setattr(int8, "trace", lambda *_, **__: traced)
    monkeypatch.setattr(int8, "quantize", spoil)
    scenes.write(tmp_path / "scenes", 24, seed=1, first=scenes.FIRST_OF_VAL)
    images = read_dataset(tmp_path / "scenes", "val")
    with pytest.raises(
        Int8LossError, match=r"^int8 loses \d+\.\d points of AP on 12 images of .*, more than 2; nothing"
    ):
        export_int8(demo(), tmp_path / "x.onnx", images, source="tests")
    assert not (tmp_path / "x.onnx").exists()
    result = export_int8(demo(), tmp_path / "x.onnx", images, source="tests", max_ap_loss=1)
    assert result.ap is not None
    assert result.ap[0] - result.ap[1] > 0.02
    assert (tmp_path / "x.onnx").exists()


@pytest.fixture(scope="module")
def on_scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command writes of the demo model, and says."""
    place = tmp_path_factory.mktemp("export")
    scenes.write(place / "scenes", 40, seed=1, first=scenes.FIRST_OF_VAL)
    command = ["export", "small.onnx", "--onnx", "--model", "demo", "--precision", "int8", "--calibrate", "scenes"]
    run = detr_command(*command, cwd=place)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert {one.name for one in place.iterdir()} == {"scenes", "small.onnx"}
    return place / "small.onnx", run.stderr


def test_the_command_says_what_int8_costs(on_scenes: tuple[Path, str], exported: Exports) -> None:
    file, said = on_scenes
    first, second, third = said.splitlines()
    share = file.stat().st_size / exported.demo()[0].stat().st_size
    assert share < 0.3
    assert first == f"small.onnx: {file.stat().st_size / 1e6:.1f} MB, {share:.2f} of fp32; calibrated with 20 images"
    found = re.fullmatch(
        r"on 20 other images, int8 finds (\d+) of the (\d+) objects of fp32, with scores that differ by (0\.0\d\d) on "
        r"average; AP (\d+\.\d) → (\d+\.\d)",
        second,
    )
    assert found is not None
    finds, all_of_them, difference, before, after = map(float, found.groups())
    assert all_of_them >= finds > 0.98 * all_of_them > 50
    assert 0 < difference < 0.03
    assert abs(before - after) < 2
    assert third == "try it: detr predict IMAGE --model small.onnx"


def test_both_engines_give_the_same_detections(on_scenes: tuple[Path, str], tmp_path: Path) -> None:
    scenes.write(tmp_path, 20, seed=1, first=scenes.FIRST_OF_VAL + 100)
    images = [one.path for one in read_dataset(tmp_path, "val").examples]
    runs = [
        detrcli.load(on_scenes[0], device="cpu", engine=engine, precision=precision).predict(images, threshold=0)
        for engine, precision in ENGINES
    ]
    matched, differences = agreement(*runs)
    assert matched.all()
    assert differences.mean() < 0.02


BOTH = "int8 takes both --precision int8 and --calibrate IMAGES, a folder of typical images"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--precision", "int8"],
            "int8 takes both --precision int8 and --calibrate IMAGES, a folder of typical images",
        ),
        (["--calibrate", "."], "int8 takes both --precision int8 and --calibrate IMAGES, a folder of typical images"),
        (
            ["--precision", "int8", "--calibrate", ".", "--no-postprocess"],
            "an int8 file is checked by its detections; leave out --no-postprocess",
        ),
        (["--precision", "int8", "--calibrate", "missing"], "missing: no such file or folder"),
    ],
)
def test_wrong_options(options: list[str], message: str, tmp_path: Path) -> None:
    run = detr_command("export", "--onnx", "--model", "demo", *options, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"detr: {message}\n")
    assert not [*tmp_path.iterdir()]


def test_images_that_are_no_dataset(tmp_path: Path) -> None:
    run = detr_command("export", "--onnx", "--model", "demo", "--precision", "int8", "--calibrate", ".", cwd=tmp_path)
    assert run.returncode == 2
    first, second = run.stderr.splitlines()
    assert first.startswith("AP is not measured (. contains no dataset: ")
    assert second == "detr: . has 0 images; int8 needs 20, better hundreds"


def test_nncf_that_is_not_installed(tmp_path: Path) -> None:
    script = "import sys; sys.modules['nncf'] = None; from detrcli.cli import main; main()"
    run = python(script, "export", "--onnx", "--precision", "int8", "--calibrate", ".", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "detr: this needs nncf; `pip install 'detrcli[int8]'`\n"


def test_nncf_reports_nothing() -> None:
    code = "import json, sys, detrcli.export.quantization; print(json.dumps([*sys.modules]), file=sys.stderr)"
    printed, modules = loaded(code)
    assert printed == ""
    assert "nncf" in modules
    assert not [one for one in modules if one.startswith("openvino_telemetry.")]
