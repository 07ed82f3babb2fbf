"""The bundled demo model reaches the AP that its card states, on held-out scenes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import detrcli
from detrcli.checkpoints.bundled import bundled, sample_image
from detrcli.datasets import Dataset, read_dataset
from detrcli.evaluation.average_precision import evaluate
from detrcli.export.int8 import export_int8
from detrcli.inference.engines import Engine

from . import scenes
from .exported import Exports, demo

CARD = bundled("demo") / "README.md"


def write_held_out(folder: Path, count: int) -> Dataset:
    scenes.write(folder, count, seed=1, first=scenes.FIRST_OF_VAL)
    return read_dataset(folder, "val")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_held_out(tmp_path_factory.mktemp("scenes"), 500)


@pytest.fixture(scope="module")
def ap(held_out: Dataset) -> float:
    return evaluate(detrcli.load("demo", device="cpu", precision="fp32"), held_out)[0].ap


def stated_ap() -> float:
    stated = re.search(r"AP on (\d+) held-out scenes: ([\d.]+)", CARD.read_text())
    assert stated is not None
    assert int(stated[1]) == 500
    return float(stated[2]) / 100


@pytest.mark.slow  # 500 scenes
def test_ap_is_as_stated(ap: float) -> None:
    assert ap == pytest.approx(stated_ap(), abs=0.002)


def test_ap_on_the_first_scenes_is_near_the_stated_one(tmp_path: Path) -> None:
    evaluation, _ = evaluate(detrcli.load("demo", device="cpu", precision="fp32"), write_held_out(tmp_path, 40))
    assert evaluation.ap == pytest.approx(stated_ap(), abs=0.05)


@pytest.mark.slow  # 500 scenes
def test_bf16_hardly_lowers_ap(held_out: Dataset, ap: float) -> None:
    assert evaluate(detrcli.load("demo", device="cpu", precision="bf16"), held_out)[0].ap >= ap - 0.003


@pytest.mark.slow  # 500 scenes each
@pytest.mark.parametrize(
    ("options", "engine", "loss"),
    [({}, "onnxruntime", 0.001), ({"precision": "fp16"}, "onnxruntime", 0.003), ({}, "openvino", 0.003)],
    ids=["fp32", "fp16", "OpenVINO's own precision"],
)
def test_onnx_export_hardly_changes_ap(
    options: dict[str, str], engine: Engine, loss: float, held_out: Dataset, ap: float, exported: Exports
) -> None:
    file = exported(demo, **options) if options else exported.demo()[0]
    assert evaluate(detrcli.load(file, device="cpu", engine=engine), held_out)[0].ap == pytest.approx(ap, abs=loss)


@pytest.mark.slow  # 500 scenes twice, and 100 to calibrate
def test_int8_hardly_lowers_ap(held_out: Dataset, ap: float, tmp_path: Path) -> None:
    scenes.write(tmp_path / "scenes", 100, seed=1, first=0)
    images = read_dataset(tmp_path / "scenes", "val")
    export_int8(demo(), tmp_path / "demo.onnx", images, source="tests")
    for engine in get_args(Engine):
        assert evaluate(detrcli.load(tmp_path / "demo.onnx", device="cpu", engine=engine), held_out)[0].ap >= ap - 0.01


def test_the_model_fits_into_the_repository() -> None:
    assert sum(path.stat().st_size for path in bundled("demo").iterdir()) < 12e6


def test_without_images_the_sample_is_used_offline(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "detrcli", "predict", "--model", "demo"]
    proxy = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "PATH": ""}
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=proxy)
    assert run.returncode == 0, run.stderr
    record = json.loads(run.stdout)
    assert Path(record["path"]).read_bytes() == sample_image().read_bytes()
    assert len(record["detections"]) >= 3
    assert (tmp_path / "detections" / "sample.jpg").is_file()
