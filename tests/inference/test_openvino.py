"""OpenVINO backend: the detections of ONNX Runtime, devices, precisions, its cache, and no telemetry."""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.detections import Detections
from detrcli.errors import DeviceError, DeviceUnavailableError, EngineVersionError, OnnxFileError, OnnxSettingError
from detrcli.host import cuda_driver
from detrcli.images.resize import Exactly, ShortestEdge
from detrcli.inference import engines, openvino

from .. import fill
from ..detr_process import python
from ..exported import Exports, Make, detr, lwdetr, padded_lwdetr, rfdetr, table_transformer, two_scales
from ..fresh_process import RUN_MAIN, loaded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the compiled networks of a test."""
    monkeypatch.setenv("OV_CACHE_DIR", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


@pytest.fixture(scope="module")
def tiny(exported: Exports) -> Path:
    """File of a small DETR, which takes images of any size."""
    return exported(detr)


def assert_same(found: Detections, expected: Detections, *, boxes: float, scores: float) -> None:
    """Compare detections in pixels and scores; the order may differ where scores nearly tie."""
    assert len(found) == len(expected)
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        near = (np.abs(found.scores - score) <= scores) & (np.abs(found.boxes - box).max(1) <= boxes)
        assert (near & (found.labels == label)).any()


@pytest.mark.parametrize("make", [detr, table_transformer, lwdetr, padded_lwdetr, rfdetr, two_scales])
def test_detections_are_those_of_onnx_runtime(make: Make, exported: Exports) -> None:
    file = exported(make)
    images = [fill.image(seed, 90, 120 + 10 * seed) for seed in range(3)]
    runs = [
        detrcli.load(file, device="cpu", engine=engine, precision="fp32").predict(images, threshold=0, workers=2)
        for engine in ("openvino", "onnxruntime")
    ]
    for found, expected in zip(*runs, strict=True):
        assert len(expected)
        assert_same(found, expected, boxes=0.02, scores=1e-4)


def test_a_file_of_fixed_batch_size(exported: Exports) -> None:
    images = [fill.image(seed, 90, 120) for seed in range(3)]
    batches = detrcli.load(exported(lwdetr, batch_size=2), device="cpu", engine="openvino", precision="fp32")
    single = detrcli.load(exported(lwdetr), device="cpu", engine="openvino", precision="fp32")
    assert batches.backend.batch_size == 2
    for found, expected in zip(batches.predict(images, threshold=0), single.predict(images, threshold=0), strict=True):
        assert_same(found, expected, boxes=0.02, scores=1e-4)


def test_threads_share_a_detector(tiny: Path) -> None:
    detector = detrcli.load(tiny, device="cpu", engine="openvino", precision="fp32")
    image = fill.image(0, 90, 120)
    (expected,) = detector.predict(image, threshold=0)
    with ThreadPoolExecutor(4) as pool:
        for (found,) in pool.map(lambda _: detector.predict(image, threshold=0), range(16)):
            assert_same(found, expected, boxes=0.02, scores=1e-4)


def test_lower_precision_is_used_where_the_cpu_has_it(tiny: Path) -> None:
    detector = detrcli.load(tiny, device="cpu", engine="openvino")
    if detector.backend.precision == "fp32":
        with pytest.raises(DeviceError, match=r"^OpenVINO does not compute in fp16 on this CPU$"):
            detrcli.load(tiny, device="cpu", engine="openvino", precision="fp16")
        pytest.skip("this CPU computes in nothing but float32")
    image = fill.image(0, 90, 120)
    exact = detrcli.load(tiny, device="cpu", engine="openvino", precision="fp32").predict(image, threshold=0)[0]
    rounded = detector.predict(image, threshold=0)[0]
    assert detector.backend.description == f"cpu, OpenVINO, {detector.backend.precision}"
    assert 1e-5 < np.abs(np.sort(rounded.scores) - np.sort(exact.scores)).max() < 0.02


def test_openvino_is_the_default_on_a_cpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detrcli.load(tiny, device="cpu").backend.engine == "OpenVINO"
    assert detrcli.load(tiny, device="cpu", engine="onnxruntime").backend.engine == "ONNX Runtime"
    if cuda_driver() is None:
        assert detrcli.load(tiny).backend.engine == "OpenVINO"


@pytest.mark.parametrize("version", [None, (2026, 0), (2025, 4)])
def test_openvino_that_is_missing_or_gives_wrong_boxes(
    version: tuple[int, int] | None, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_openvino_version", lambda: version)
    assert detrcli.load(tiny, device="cpu").backend.engine == "ONNX Runtime"
    if version is not None:
        with pytest.raises(EngineVersionError, match=rf"^OpenVINO {version[0]}\.{version[1]} gives wrong boxes"):
            detrcli.load(tiny, device="cpu", engine="openvino")


def test_sizes_of_files_of_dynamic_and_fixed_size(tiny: Path, exported: Exports) -> None:
    def load(file: Path, size: int | tuple[int, int] | None = None) -> detrcli.Detector:
        return detrcli.load(file, device="cpu", engine="openvino", size=size)

    assert load(tiny)._resize == ShortestEdge(64, 96)
    assert load(tiny, (128, 96))._resize == Exactly(128, 96)
    assert len(load(tiny, (128, 96)).predict(fill.image(0, 90, 120), threshold=0)[0])
    assert load(exported(lwdetr), 128)._resize == Exactly(128, 128)
    with pytest.raises(OnnxSettingError, match="only takes 128 × 128 pixels"):
        load(exported(lwdetr), 192)


@pytest.mark.parametrize("device", ["cuda", "mps", "openvino", "openvino:", "gpu"])
def test_no_such_device(device: str, tiny: Path) -> None:
    with pytest.raises(DeviceError, match="OpenVINO runs on auto, cpu, or openvino:NAME, such as"):
        detrcli.load(tiny, device=device, engine="openvino")


def test_a_device_that_this_machine_lacks(tiny: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"OpenVINO finds no GPU\.7; it finds .*CPU"):
        detrcli.load(tiny, device="openvino:GPU.7")


def test_files_that_cannot_be_used(tmp_path: Path, exported: Exports) -> None:
    damaged, foreign, weights = tmp_path / "damaged.onnx", tmp_path / "foreign.onnx", tmp_path / "model.safetensors"
    damaged.write_bytes(b"no model")
    with pytest.raises(OnnxFileError, match=r"^OpenVINO \S+ cannot read \S+damaged.onnx \("):
        detrcli.load(damaged, engine="openvino")
    import onnx

    model = onnx.load(exported(detr))
    del model.metadata_props[:]
    onnx.save(model, foreign)
    with pytest.raises(OnnxFileError, match=r"foreign.onnx was not exported by detrcli"):
        detrcli.load(foreign, engine="openvino")
    with pytest.raises(OnnxFileError, match="exported without postprocessing"):
        detrcli.load(exported(detr, postprocess=False), engine="openvino")
    weights.write_bytes(b"")
    with pytest.raises(OnnxFileError, match=r"^model is not an ONNX file, which openvino needs$"):
        detrcli.load(weights, engine="openvino")


def test_compiled_networks_are_kept(tiny: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def detections() -> Detections:
        return detrcli.load(tiny, device="cpu", engine="openvino").predict(fill.image(0, 90, 120), threshold=0)[0]

    expected = detections()
    kept = sorted(cache.rglob("*.blob"))
    assert kept
    written = [file.stat().st_mtime_ns for file in kept]
    assert_same(detections(), expected, boxes=0, scores=0)
    assert sorted(cache.rglob("*.blob")) == kept
    assert [file.stat().st_mtime_ns for file in kept] == written
    (tmp_path / "file").write_text("")
    for folder in ("", str(tmp_path / "file" / "below")):
        monkeypatch.setenv("OV_CACHE_DIR", folder)
        assert_same(detections(), expected, boxes=0, scores=0)


def test_the_cache_is_bounded(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OV_CACHE_DIR")
    monkeypatch.setattr(openvino, "_user_cache", lambda: tmp_path)
    folder = tmp_path / "detrcli" / "openvino"
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "oldest"), 1):
        (folder / f"{name}.blob").write_bytes(bytes(1000))
        os.utime(folder / f"{name}.blob", (1e9 - age, 1e9 - age))

    def compiled() -> set[str]:
        detrcli.load(tiny, device="cpu", engine="openvino").predict(fill.image(0, 90, 120))
        return {path.stem for path in folder.iterdir()}

    (mine,) = compiled() - {"new", "old", "oldest"}
    monkeypatch.setattr(openvino, "MAX_CACHED_BYTES", (folder / f"{mine}.blob").stat().st_size + 2000)
    assert compiled() == {mine, "new", "old"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are delivered to handlers on POSIX systems alone")
def test_ctrl_c_after_detectors_are_gone(tiny: Path, tmp_path: Path) -> None:
    """Interrupts the process, rather than crashing it, where two detectors were used one after the other."""
    script = """
import faulthandler, os, signal, sys
import numpy as np
import detrcli
faulthandler.enable()
first, second = (detrcli.load(sys.argv[1], device="cpu", engine="openvino") for _ in range(2))
for detector in (first, second):
    detector.predict(np.zeros((90, 120, 3), np.uint8))
del detector, first
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    run = python(script, tiny, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "interrupted\n", "")


def test_the_command_line(tiny: Path, tmp_path: Path) -> None:
    """Runs without PyTorch, ONNX Runtime and telemetry, and writes nothing but its outputs and its cache."""
    shutil.copy(tiny, tmp_path / "tiny.onnx")
    Image.fromarray(fill.image(0, 80, 60)).save(tmp_path / "a.png")
    arguments = ["predict", "a.png", "--model", "tiny.onnx", "--device", "cpu", "--engine", "openvino", "--no-draw"]
    printed, modules = loaded(RUN_MAIN, *arguments, cwd=tmp_path)
    assert json.loads(printed)["model"] == "tiny"
    assert "openvino" in modules
    unwanted = {"torch", "onnx", "onnxruntime", "openvino_telemetry.main", "huggingface_hub", "rich", "scipy"}
    assert modules & unwanted == set()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "tiny.onnx", "compiled"}


def test_openvino_that_is_not_installed(tiny: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['openvino'] = None; from detrcli.cli import main; main()"
    run = python(script, "predict", sample_image(), "--model", tiny, "--engine", "openvino", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "detr: this needs openvino; `pip install 'detrcli[openvino]'`\n"
