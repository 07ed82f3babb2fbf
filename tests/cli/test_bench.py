"""`detr bench` in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detrcli.cli import benchmark as bench
from detrcli.cli.benchmark import BenchmarkCase, measure
from detrcli.host import cpu_name

from ..detr_process import detr
from ..exported import Exports
from ..exported import detr as tiny
from ..tiny import save_tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, exported: Exports) -> Path:
    """Folder with the DETR `tiny`, its export `tiny.onnx`, and an image."""
    place = tmp_path_factory.mktemp("bench")
    save_tiny(place / "tiny")
    (place / "tiny.onnx").symlink_to(exported(tiny))
    Image.new("RGB", (90, 60), "teal").save(place / "a.jpg")
    return place


def test_models_and_batch_sizes(place: Path) -> None:
    options = ("--iterations", 2, "--batch-size", 1, "--batch-size", 3, "--device", "cpu", "--image", "a.jpg")
    engines = ("--engine", "onnxruntime", "--engine", "openvino")
    run = detr("bench", "tiny", "tiny.onnx", *options, *engines, "--precision", "fp32", cwd=place)
    assert run.returncode == 0, run.stderr
    output = json.loads(run.stdout)
    assert output["threads"] == 1
    places = ("cpu, fp32", "cpu, ONNX Runtime, fp32", "cpu, OpenVINO, fp32")
    assert {"detrcli", "python", "torch", "onnxruntime", "openvino"} <= output["versions"].keys()
    assert output["places"].keys() == set(places)
    assert all(place["product_gflops"] > 1 for place in output["places"].values())
    assert {place["processor"] for place in output["places"].values()} == {cpu_name()}
    assert [(one["on"], one["batch"]) for one in output["results"]] == [
        (on, batch) for on in places for batch in (1, 3)
    ]
    for one in output["results"]:
        for part in ("network", "whole"):
            assert 0 < one[part]["median"] <= one[part]["p95"]
        assert one["images_per_second"] == pytest.approx(one["batch"] / one["whole"]["median"])
    assert [one["gflops"] is None for one in output["results"]] == [False] * 2 + [True] * 4


def test_an_onnx_file_is_timed_without_torch(place: Path) -> None:
    command = [sys.executable, "-m", "detrcli", "bench", "tiny.onnx", "--iterations", "1", "--device", "cpu"]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "torch" not in json.loads(run.stdout)["versions"]


def test_warmup_and_first_runs_are_not_counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fake clock: warmup runs take a minute, then every first run half a minute, every second a few seconds."""
    now, runs = [0.0], [0]

    class Backend:
        description, batch_size = "slow", 1

        def run(self, pixels: Any, sizes: Any, **_: Any) -> Any:
            runs[0] += 1
            now[0] += 60 if runs[0] <= 4 * bench.WARMUP else {1: 30, 2: 2, 3: 30, 0: 1}[runs[0] % 4]
            return []

    class Detector:
        name, backend = "slow", Backend()

        def resized(self, image: Image.Image) -> Any:
            import numpy as np

            return np.asarray(image)

        def predict(self, *args: Any, **kwargs: Any) -> None:
            self.backend.run([], [])

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    (speed,) = measure([BenchmarkCase(Detector(), 1)], place / "a.jpg", 4)  # type: ignore[arg-type]
    assert (speed.network.median, speed.whole.median) == (2, 1)
    assert speed.gflops is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", "--precision", "fp8"), "'fp8' is not one of auto, fp32, fp16, bf16"),
        (("nothing",), "no model is called 'nothing'"),
        (("tiny.onnx", "--engine", "onnxruntime", "--precision", "fp16"), "tiny.onnx computes in fp32"),
        (("tiny", "--image", "absent.jpg"), "absent.jpg"),
        (("tiny", "--device", "cpu,cpu"), "single device, not cpu,cpu"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors(place: Path, arguments: tuple[str, ...], message: str) -> None:
    run = detr("bench", *arguments, cwd=place)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
