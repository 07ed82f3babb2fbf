"""Wrappers of training frameworks are removed; what only resembles them is refused."""

import argparse
import collections
import pathlib
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detrcli.checkpoints.find import find
from detrcli.checkpoints.layouts import DETR_ORIGINAL, LWDETR_HUB
from detrcli.checkpoints.load import LoadedModel, load_checkpoint, load_model
from detrcli.checkpoints.read import read_weights
from detrcli.errors import ModelError
from detrcli.models.detr import DetrConfig
from detrcli.models.lwdetr import SIZES, LwDetr

from ..tiny import in_hub_layout, tiny_network

NETWORK = tiny_network()
OURS = NETWORK.state_dict()
ORIGINAL, HUB = DETR_ORIGINAL.to_published(OURS), in_hub_layout(OURS)
OTHER = DETR_ORIGINAL.to_published(tiny_network(seed=1).state_dict())
Tensors = dict[str, Tensor]


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def same(path: Path) -> None:
    loaded = load_model(path).state_dict()
    assert loaded.keys() == OURS.keys()
    assert all(torch.equal(loaded[name], OURS[name]) for name in OURS)


PREFIXES = (
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "model._orig_mod.",
    "_orig_mod.model.module.",
    "net.detector.",
    "_fsdp_wrapped_module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", ["original", "hub"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes(tmp_path: Path, prefix: str, layout: str, suffix: str) -> None:
    tensors = prefixed(prefix, ORIGINAL if layout == "original" else HUB)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    same(path)


def test_separately_compiled_parts(tmp_path: Path) -> None:
    tensors = {name.replace("backbone.0.", "backbone._orig_mod.0.", 1): tensor for name, tensor in ORIGINAL.items()}
    torch.save(tensors, tmp_path / "weights.pth")
    same(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": prefixed("model.", ORIGINAL)},
        {"model_state_dict": ORIGINAL, "optimizer_state_dict": {"state": {}}},
        {"model": OTHER, "ema": {"module": ORIGINAL, "updates": 9}},
        {"model": OTHER, "ema": ORIGINAL},
        {"model": OTHER, "ema_model": prefixed("module.", ORIGINAL)},
        {"model": ORIGINAL, "ema": None, "best_loss": torch.tensor(0.5)},
        {"state_dict": prefixed("model.", OTHER) | prefixed("ema_model.module.", ORIGINAL)},
        {"state_dict": prefixed("ema.", ORIGINAL) | OTHER},
        {"model": {"state_dict": ORIGINAL}},
    ],
)  # fmt: skip
def test_dictionaries(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(content | {"epoch": 3}, path)
    same(path)


def lightning(module: str, tensors: Tensors) -> dict[str, Any]:
    """Make a checkpoint with the keys and types of PyTorch Lightning's."""
    return {
        "epoch": 4,
        "global_step": 1250,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(prefixed(module, tensors))
        | {"criterion.empty_weight": torch.ones(8), "val_map.scores": torch.zeros(2), "loss_fn.weight": torch.ones(8)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "a.ckpt", "best": torch.tensor(0.3)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-4, "data": pathlib.Path("data/set"), "dilation": np.bool_(False)},
    }


@pytest.mark.parametrize("layout", ["original", "hub"])
def test_lightning(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "epoch=4-step=1250.ckpt"
    content = lightning("model.", ORIGINAL if layout == "original" else HUB)
    del content["state_dict"]["val_map.scores"]
    torch.save(content, path)
    same(path)


def test_unknown_tensors_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(lightning("model.", ORIGINAL), path)
    with pytest.raises(ModelError, match=r"unexpected val_map\.scores$"):
        load_model(path)
    torch.save({"state_dict": prefixed("model.", ORIGINAL) | {"model.neck.weight": torch.ones(1)}}, path)
    with pytest.raises(ModelError, match=r"unexpected model\.neck\.weight$"):
        load_model(path)


def test_leftovers_beside_the_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(prefixed("model.", ORIGINAL | {"criterion.empty_weight": torch.ones(8)}), path)
    same(path)
    torch.save(ORIGINAL | {"criterion.empty_weight": torch.ones(8), "optimizer.step": torch.ones(1)}, path)
    same(path)


def test_two_networks_are_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(prefixed("student.", ORIGINAL) | prefixed("teacher.", OTHER), path)
    with pytest.raises(ModelError, match=r"several networks \(student\., teacher\.\)"):
        load_model(path)
    torch.save(ORIGINAL | prefixed("module.", OTHER), path)
    with pytest.raises(ModelError, match="it has both"):
        load_model(path)


def _dilation(loaded: LoadedModel) -> bool:
    config = loaded.network.config
    assert isinstance(config, DetrConfig)
    return config.dilation


@pytest.mark.parametrize("wrap", [argparse.Namespace, types.SimpleNamespace, dict])
@pytest.mark.parametrize("dilation", [True, False])
def test_dilation_from_the_training_arguments(tmp_path: Path, wrap: Callable[..., Any], dilation: bool) -> None:
    path = tmp_path / f"{'plain' if dilation else 'dc5'}.pth"
    torch.save({"model": ORIGINAL, "args": wrap(dilation=dilation, lr=1e-4)}, path)
    loaded = load_checkpoint(find(str(path)))
    assert _dilation(loaded) is dilation
    kind = "dilated (DC5)" if dilation else "not dilated (no DC5)"
    assert loaded.notes == (f"the backbone is {kind}, according to the arguments of its training run",)
    torch.save({"model": ORIGINAL}, path)
    loaded = load_checkpoint(find(str(path)))
    assert _dilation(loaded) is not dilation
    assert loaded.notes[0].endswith("according to the file's name")


PLAIN_DATA = {
    "float": (np.float64(1.5), 1.5),
    "float32": (np.float32(0.25), 0.25),
    "int": (np.int64(-3), -3),
    "big-endian": (np.array([258], ">u2")[0], 258),
    "bool": (np.bool_(True), True),
    "text": (np.str_("näme"), "näme"),
    "path": (pathlib.PosixPath("a/b"), pathlib.PurePosixPath("a/b")),
    "windows path": (pathlib.PureWindowsPath("C:/a"), pathlib.PureWindowsPath("C:/a")),
    "defaultdict": (collections.defaultdict(list, {1: [2]}), {1: [2]}),
    "namespace": (argparse.Namespace(a=1), argparse.Namespace(a=1)),
    "simple namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=1)),
    "dtype": (torch.float16, torch.float16),
    "device": (torch.device("cpu"), torch.device("cpu")),
    "size": (torch.Size([2, 3]), torch.Size([2, 3])),
    "set": ({1, 2}, {1, 2}),
    "bytes": (b"\xff\x00", b"\xff\x00"),
    "counter": (collections.Counter("aab"), collections.Counter("aab")),
}


@pytest.mark.parametrize("kind", PLAIN_DATA)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_plain_data_beside_the_weights(tmp_path: Path, kind: str, zipped: bool) -> None:
    written, read = PLAIN_DATA[kind]
    path = tmp_path / "weights.pth"
    content = {"model": {"a": torch.zeros(1)}, "args": {"it": written}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert read_weights(path).arguments == {"it": read}


def calling(module: str, name: str, *arguments: object) -> bytes:
    """Pickle a call of a function, whether it exists or not."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


ARRAYS = "numpy._core.multiarray"
ATTACKS: dict[str, tuple[Any, ...]] = {
    "reconstruct": (ARRAYS, "_reconstruct", bytearray, (0,), b"b"),
    "object scalar": (ARRAYS, "scalar", np.dtype("O"), b"A" * 8),
    "pointer scalar": (ARRAYS, "scalar", np.dtype([("a", "O")]), b"A" * 8),
    "date": (ARRAYS, "scalar", np.dtype("M8[s]"), b"A" * 8),
    "path method": ("pathlib", "Path.unlink", "x"),
    "touch": ("pathlib", "PosixPath.touch", "x"),
    "eval": ("builtins", "eval", "1"),
    "getattr": ("builtins", "getattr", {}, "keys"),
    "system": ("posix", "system", "true"),
    "import": ("importlib", "import_module", "antigravity"),
    "type": ("builtins", "type", "x", (), {}),
    "numpy load": ("numpy", "load", "x"),
    "memmap": ("numpy", "memmap", "x"),
    "our own": ("detrcli.checkpoints.pickles", "scalar", 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_else_is_called(tmp_path: Path, attack: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(calling(*ATTACKS[attack]))
    with pytest.raises(ModelError, match="was refused") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_scalar_without_its_bytes_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(calling(ARRAYS, "scalar", np.dtype("f8"), b"abc"))
    with pytest.raises(ModelError, match="damaged"):
        read_weights(path)


def test_wrapped_lwdetr(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LwDetr(SIZES["tiny"])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    ours = network.state_dict()
    hub = LWDETR_HUB.to_published(ours)
    path = tmp_path / "weights.ckpt"
    torch.save({"state_dict": prefixed("model._orig_mod.", hub) | {"criterion.weight": torch.ones(3)}}, path)
    loaded = load_model(path).state_dict()
    assert all(torch.equal(loaded[name], ours[name]) for name in ours)
