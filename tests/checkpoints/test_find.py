"""Finding a model's files by its name, and errors in plain words."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detrcli.checkpoints.find import find
from detrcli.checkpoints.names import KNOWN_MODELS
from detrcli.cli.hints import with_hint
from detrcli.errors import ModelError, UnknownModelError

CONFIG = {"model_type": "detr"}


def refused(model: str, *, revision: str | None = None, offline: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        find(model, revision=revision, offline=offline)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text('{"size": 480}')
    return folder


def test_folder(folder: Path) -> None:
    found = find(str(folder))
    assert found.name == "my-model"
    assert found.weights == folder / "model.safetensors"
    assert found.config == CONFIG
    assert found.preprocessor == {"size": 480}


def test_other_paths_of_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert find("~/my-model").weights == folder / "model.safetensors"
    monkeypatch.chdir(folder.parent)
    assert find("my-model/").weights.resolve() == folder / "model.safetensors"
    monkeypatch.chdir(folder)
    assert find(".").name == "my-model"


def test_folder_without_settings(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    found = find(str(folder))
    assert found.config is None
    assert found.preprocessor is None


def test_folder_with_both_kinds_of_weights(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert find(str(folder)).weights.name == "model.safetensors"
    (folder / "model.safetensors").unlink()
    assert find(str(folder)).weights.name == "pytorch_model.bin"


def test_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.onnx")
    message = refused(str(folder))
    assert f"{folder} has no weights" in message
    assert "model.safetensors" in message
    assert "pytorch_model.bin" in message


def test_file(folder: Path, tmp_path: Path) -> None:
    path = folder / "epoch-3.pth"
    path.write_bytes(b"")
    found = find(str(path))
    assert (found.name, found.weights, found.config) == ("epoch-3", path, CONFIG)
    assert found.preprocessor == {"size": 480}
    lone = tmp_path / "lone.pth"
    lone.write_bytes(b"")
    assert find(str(lone)).config is None
    (tmp_path / "config.json").write_text('{"lr": 1e-4}')
    assert find(str(lone)).config is None  # not a model's
    (tmp_path / "config.json").write_text('{"model_type": "yolos"}')
    assert "'yolos'" in refused(str(lone))


@pytest.mark.parametrize(
    "missing", ["./model", "/nowhere/model", "../x", "model.pth", "org/model.safetensors", "~/none"]
)
def test_missing_path(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert refused(missing) == f"no such file or folder: {missing}"


def test_home_of_an_unknown_user() -> None:
    assert "~nobody-of-that-name/model" in refused("~nobody-of-that-name/model")


def test_name_longer_than_any_path() -> None:
    assert "no model is called" in refused("x" * 300)


@pytest.mark.parametrize(
    ("misspelled", "meant"),
    [("detr-resnet50", "detr-resnet-50"), ("detr-resnet-101-dc", "detr-resnet-101-dc5"), ("dert-50", "detr-resnet-50")],
)
def test_near_miss(misspelled: str, meant: str) -> None:
    message = refused(misspelled)
    assert f"no model is called {misspelled!r}; did you mean " in message
    assert meant in message


@pytest.mark.parametrize("model", ["yolo", "a/b/c", "org/", "org/name with space"])
def test_no_such_name(model: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        find(model)
    assert str(caught.value) == f"no model is called {model!r}"
    assert "`detr models` lists the known names" in with_hint(caught.value)


def test_revision_of_a_path(folder: Path) -> None:
    for path in (folder, folder / "model.safetensors"):
        message = refused(str(path), revision="main")
        assert message == f"{path} has no revisions: it is not on the Hub"


def test_known_names_come_before_folders(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = KNOWN_MODELS[0].name
    folder.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "not in the cache" in refused(name, offline=True)
    assert find(f"./{name}").weights == Path(name, "model.safetensors")


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.json", b'{"model_type": "detr"', "is not valid JSON"),
        ("config.json", b"", "is not valid JSON"),
        pytest.param("config.json", b'{"a":' * 200_000, "is not valid JSON", id="deep"),
        pytest.param("preprocessor_config.json", b"[" * 200_000, "is not valid JSON", id="deep-preprocessor"),
        pytest.param("config.json", b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON", id="long-number"),
        ("config.json", b"\xff\xfe{\x00", "is not valid JSON"),
        ("config.json", b'["detr"]', "is not a JSON object"),
        ("config.json", b'{"model_type": "yolos"}', "'yolos'"),
        ("config.json", b'{"model_type": ["detr"]}', "['detr']"),
        ("preprocessor_config.json", b"{'size': 800}", "is not valid JSON"),
        ("preprocessor_config.json", b"800", "is not a JSON object"),
    ],
)
def test_broken_settings(folder: Path, file: str, content: bytes, expected: str) -> None:
    (folder / file).write_bytes(content)
    for model in (folder, folder / "model.safetensors"):
        message = refused(str(model))
        assert str(folder / file) in message
        assert expected in message


@pytest.mark.parametrize("content", [b'{"image_processor": [1]}', b'{"image_processor": 1}', b"[", b"[1]"])
def test_broken_settings_of_transformers_5(folder: Path, content: bytes) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_bytes(content)
    assert str(folder / "processor_config.json") in refused(str(folder))


@pytest.mark.parametrize("content", [{"image_processor": {"size": 320}}, {"processor_class": "x"}])
def test_settings_of_transformers_5(folder: Path, content: dict[str, Any]) -> None:
    (folder / "processor_config.json").write_text(json.dumps(content))
    assert find(str(folder)).preprocessor == {"size": 480}
    (folder / "preprocessor_config.json").unlink()
    assert find(str(folder)).preprocessor == content.get("image_processor")


def test_a_byte_order_mark(folder: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    found = find(str(folder))
    assert (found.config, found.preprocessor) == (CONFIG, {"size": 480})


def test_a_folder_whose_settings_have_no_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert f"{folder / 'config.json'} describes a model of type None" in refused(str(folder))


def test_settings_that_cannot_be_read(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert f"cannot read {folder / 'config.json'}" in refused(str(folder))


def test_finding_a_model_loads_no_torch(folder: Path) -> None:
    program = """
import sys
from detrcli.checkpoints.find import find
find(sys.argv[1])
print([name for name in ("torch", "numpy", "PIL", "huggingface_hub") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert run.stdout == "[]\n"
