"""`detr export` in a process of its own."""

import json
import re
from pathlib import Path

import onnx
import pytest

from ..detr_process import detr, python
from ..exported import Exports
from ..tiny import save_tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    save_tiny(place / "tiny")
    (place / "elsewhere").mkdir()
    return place


def test_predictions_of_the_file_match_pytorch(place: Path, exported: Exports) -> None:
    file, said = exported.demo()
    match = re.search(r"(\d+) of (\d+) predictions match PyTorch's within", said)
    assert match is not None
    assert match[1] == match[2] != "0"
    assert said.splitlines()[-1] == "try it: detr predict IMAGE --model demo.onnx"
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert (metadata["name"], metadata["source"], metadata["license"]) == ("demo", "demo", "Apache-2.0")
    sample = Path(__file__).parents[2] / "weights/demo/sample.jpg"
    found = {}
    for model in ("demo", str(file)):
        run = detr("predict", sample, "--model", model, "--device", "cpu", "--precision", "fp32", cwd=place)
        assert run.returncode == 0, run.stderr
        found[model] = json.loads(run.stdout)["detections"]
    assert len(found["demo"]) >= 3
    assert [one["label"] for one in found["demo"]] == [one["label"] for one in found[str(file)]]
    for ours, theirs in zip(found[str(file)], found["demo"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-3)
        assert ours["box"] == pytest.approx(theirs["box"], abs=0.5)


def test_output_folder_name_batch_size_precision_size_opset_and_bare_network(place: Path) -> None:
    options = ("--batch-size", 2, "--precision", "fp16", "--image-size", "96x64", "--opset", 20, "--no-postprocess")
    run = detr("export", "elsewhere", "--model", "tiny/model.safetensors", "--onnx", *options, "--quiet", cwd=place)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    model = onnx.load(place / "elsewhere/tiny.onnx")
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == [2, 3, 64, 96]
    assert model.opset_import[0].version == 20
    assert [one.name for one in model.graph.output] == ["logits", "boxes"]


@pytest.mark.parametrize(
    ("home", "work", "arguments"),
    [
        ("detrcli.export.onnx", "export_onnx", ["export", "--onnx", "--model", "demo"]),
        ("detrcli.outputs.merge", "merge_shards", ["merge", "."]),
    ],
)
def test_sigterm_raises_an_exception(home: str, work: str, arguments: list[str], tmp_path: Path) -> None:
    """Otherwise, it could leave a partial file."""
    script = f"""
import signal, sys
import {home} as home
from detrcli.cli import main
home.{work} = lambda *_, **__: signal.raise_signal(signal.SIGTERM)
main()
"""
    assert python(script, *arguments, cwd=tmp_path).returncode == 143


def test_suggested_command_is_quoted_and_metadata_has_no_path(place: Path) -> None:
    command = ("export", "my tiny.onnx", "--model", "~/tiny", "--format", "onnx", "--batch-size", 1, "--opset", 22)
    run = detr(*command, cwd=place, settings={"HOME": str(place)})
    assert run.returncode == 0, run.stderr
    assert "CUDA has no kernels for some operators of opset 22" in run.stderr
    assert run.stderr.splitlines()[-1] == "try it: detr predict IMAGE --model 'my tiny.onnx'"
    metadata = {entry.key: entry.value for entry in onnx.load(place / "my tiny.onnx").metadata_props}
    assert metadata["source"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "tiny"), "no format was chosen; use `detr export --onnx`"),
        (("--onnx", "--model", "x.onnx"), "x.onnx is already an ONNX file; name the model that it was exported from"),
        (("--onnx", "--model", "tiny", "--opset", "3"), "--opset takes 18 to 23, not 3"),
        (("--onnx", "--model", "tiny", "--batch-size", "9999999999"), "export; use a smaller --batch-size"),
        (("--onnx", "--model", "X.ONNX"), "X.ONNX is already an ONNX file"),
        (("--onnx", "--model", "tiny", "--batch-size", "0"), "--batch-size takes a number or dynamic, not '0'"),
        (("--onnx", "--model", "tiny", "x.pt"), "the name of x.pt must end in .onnx"),
        (("--onnx", "--model", "tiny", "tiny/config.json/x.onnx"), "cannot write tiny/config.json/x.onnx"),
        (("--onnx", "--model", "tiny", f"{'a' * 260}.onnx"), "File name too long; choose another place"),
        (("--onnx", "--model", "nothing"), "no model is called 'nothing'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_are_one_line(place: Path, arguments: tuple[str, ...], message: str) -> None:
    run = detr("export", *arguments, cwd=place)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
