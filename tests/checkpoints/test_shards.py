"""Sharded weights, and folders of checkpoints from transformers' Trainer."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_model
from detrcli.errors import ModelError
from detrcli.files import digest_of

from ..tiny import save_tiny

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in one file."""
    save_tiny(tmp_path / "model")
    return tmp_path / "model"


def shard(folder: Path, *, stem: str = "model", suffix: str = ".safetensors") -> list[Path]:
    """Replace a folder's weights by three files and an index, as `save_pretrained` does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = [folder / f"{stem}-0000{number}-of-00003{suffix}" for number in (1, 2, 3)]
    where = {name: shards[place % 3].name for place, name in enumerate(sorted(tensors))}
    for path in shards:
        part = {name: tensor for name, tensor in tensors.items() if where[name] == path.name}
        if suffix == ".bin":
            torch.save(part, path)
        else:
            save_file(part, path)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return shards


def refused(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("stem", "suffix"), [("model", ".safetensors"), ("pytorch_model", ".bin")])
def test_shards_are_one_model(folder: Path, stem: str, suffix: str) -> None:
    whole = load_model(folder).state_dict()
    shard(folder, stem=stem, suffix=suffix)
    index = folder / f"{stem}{suffix}.index.json"
    for model in (folder, index):
        assert find(str(model)).name == "model"
        shared = load_model(model).state_dict()
        assert shared.keys() == whole.keys()
        assert all(torch.equal(shared[name], whole[name]) for name in whole)


def test_missing_shards_are_named(folder: Path) -> None:
    shards = shard(folder)
    shards[1].unlink()
    assert f"names {shards[1].name}, which is missing" in refused(folder)
    shards[2].unlink()
    assert f"names {shards[1].name} and 1 more" in refused(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "sub/x.safetensors", "..", 7])
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: object) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"class_head.weight": name}}))
    assert f"names {name!r}, which is not a weights file beside it" in refused(folder)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a.safetensors"]}'])
def test_an_invalid_index(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(content)
    assert "has no weight_map" in refused(folder)


def test_digest_of_several_files_covers_all_contents(tmp_path: Path) -> None:
    first, second, both = (tmp_path / name for name in ("first", "second", "both"))
    first.write_bytes(b"ab")
    second.write_bytes(b"c")
    both.write_bytes(b"abc")
    assert digest_of(first, second) == digest_of(both) != digest_of(first)


def test_the_checkpoints_of_a_trainer_are_suggested(folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for step in (500, 1000, 90):
        save_tiny(runs / f"checkpoint-{step}")
    (runs / "checkpoint-2000").mkdir()  # interrupted while it was written
    last, best = runs / "checkpoint-1000", runs / "checkpoint-500"
    assert refused(runs) == f"{runs} has no weights; use one of its checkpoints: {last} is the last"
    state = last / "trainer_state.json"
    state.write_text(json.dumps({"best_model_checkpoint": "/elsewhere/runs/checkpoint-500"}))
    assert refused(runs).endswith(f"use one of its checkpoints: {best} is the best, {last} the last")
    state.write_text(json.dumps({"best_model_checkpoint": str(last)}))
    assert refused(runs).endswith(f"use its checkpoint {last}, the last and the best")
    state.write_text(json.dumps({"best_model_checkpoint": "/elsewhere/checkpoint-7"}))
    assert refused(runs).endswith(f"{last} is the last")
    assert load_model(last).config == load_model(best).config
