"""Valid, damaged and malicious weights files."""

import argparse
import fractions
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from detrcli.checkpoints.load import load_model
from detrcli.checkpoints.read import read_weights
from detrcli.errors import ModelError
from detrcli.models.lwdetr import SIZES

from ..places import DATA
from ..tiny import in_hub_layout, tiny_network

WEIGHTS = {"first.weight": torch.arange(6.0).reshape(2, 3), "first.bias": torch.zeros(2)}


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(tensors: dict[str, torch.Tensor]) -> None:
    assert list(tensors) == list(WEIGHTS)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, WEIGHTS[name], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_weights(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    same(read_weights(path).tensors)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(WEIGHTS, path)
    tensors = read_weights(path).tensors
    same({name: tensors[name] for name in WEIGHTS})


def test_training_checkpoint(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    content = {
        "model": WEIGHTS,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 200).state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-4, backbone="resnet50", masks=False, frozen_weights=None, betas=(0.9, 0.999)),
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    same(read_weights(path).tensors)


@pytest.mark.parametrize("place", ["beside", "within"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, suffix: str, zipped: bool, place: str) -> None:
    sprung = tmp_path / "sprung"
    trap = Trap(sprung)
    content: dict[str, Any] = {"model": WEIGHTS, "args": trap} if place == "beside" else {**WEIGHTS, "more": trap}
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "refused" in message
    assert "foreign code" in message
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists(), "the trap does not work"


def test_code_in_a_bare_pickle_never_runs(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    refused(path)
    assert not sprung.exists()


def test_other_classes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**WEIGHTS, "scale": fractions.Fraction(1, 3)}, path)
    assert "refused" in refused(path)
    torch.save(torch.nn.Linear(3, 2), path)
    assert "refused" in refused(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 166000000\n")


def page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html><body>Not found</body></html>\n")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


@pytest.mark.parametrize("damage", [empty, truncated, cut_short, text, page, noise])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_damaged_files(tmp_path: Path, suffix: str, damage: Callable[[Path], None]) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path)
    damage(path)
    message = refused(path)
    assert "damaged" in message
    assert "download it again" in message


@pytest.mark.parametrize("damage", [truncated, cut_short])
def test_damaged_legacy_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    damage(path)
    assert "damaged" in refused(path)


def test_the_file_to_delete_from_a_cache_is_named(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"")
    for suffix in (".safetensors", ".bin"):
        path = tmp_path / f"weights{suffix}"
        path.symlink_to(blob)
        assert f"delete {blob} and load the model again" in refused(path)


def test_pickle_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save(WEIGHTS, path)
    assert "not a safetensors file" in refused(path)


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file(WEIGHTS, path)
    assert "not a PyTorch file" in refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_file(tmp_path: Path, suffix: str) -> None:
    assert "cannot read" in refused(tmp_path / f"weights{suffix}")


@pytest.mark.parametrize("name", ["weights.h5", "weights", "weights.txt"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save(WEIGHTS, path)
    assert ".safetensors" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {}}, torch.zeros(3)])
def test_pickle_without_weights(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "has no" in refused(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_are_float32_whatever_the_dtype_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in in_hub_layout(tiny_network().state_dict()).items()}
    save_file(weights, tmp_path / "weights.safetensors")
    network = load_model(tmp_path / "weights.safetensors")
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(network.class_head.weight, weights["class_labels_classifier.weight"].float())
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).boxes.dtype == torch.float32


def test_ema_weights_are_preferred(tmp_path: Path) -> None:
    shapes = json.loads((DATA / "lwdetr-tiny.keys.json").read_text())
    content = {
        "model": {name: torch.zeros(shape) for name, shape in shapes.items()},
        "ema_model": {f"module.{name}": torch.ones(shape) for name, shape in shapes.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "lr_scheduler": {"last_epoch": 59},
        "epoch": 59,
        "args": argparse.Namespace(encoder="vit_tiny", lr=4e-4, group_detr=13),
    }
    path = tmp_path / "LWDETR_tiny_60e_coco.pth"
    torch.save(content, path)
    network = load_model(path)
    assert network.config == SIZES["tiny"]
    assert all((parameter == 1).all() for parameter in network.parameters())
    torch.save(content | {"args": fractions.Fraction(1, 2)}, path)
    assert "was refused" in refused(path)
