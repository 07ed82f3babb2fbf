"""Pipes in place of model files are reported and never block."""

import os
from pathlib import Path

import pytest

from detrcli.checkpoints.class_names import read_class_names
from detrcli.checkpoints.find import find
from detrcli.errors import ModelError, UsageError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.onnx"])
def test_weights_that_are_a_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name} is a pipe or a device, not a file"):
        find(str(tmp_path / name))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_a_pipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").touch()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name}: a pipe, not a file"):
        find(str(tmp_path))


def test_class_names_that_are_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "names.txt")
    with pytest.raises(UsageError, match=r"names\.txt: a pipe, not a file"):
        read_class_names(tmp_path / "names.txt")
