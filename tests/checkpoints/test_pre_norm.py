"""A DETR that was trained with pre-norm is a DETR, though it has the tensors of a Table Transformer."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import detrcli
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.layouts import DETR_ORIGINAL
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.errors import ModelError
from detrcli.export.onnx import export_onnx
from detrcli.images.resize import ExactLongestEdge, ShortestEdge
from detrcli.models.detr import DetrConfig
from detrcli.models.table_transformer import TableTransformerConfig
from detrcli.training.criterion import DETR_CRITERION, criterion_for
from detrcli.training.initial_model import pretrained
from detrcli.training.optimizer import DETR_FINE_TUNING, fine_tuning_config

from .. import fill
from ..tiny import tiny_network

pytestmark = pytest.mark.filterwarnings("ignore::detrcli.errors.ModelWarning")
"""The files have no preprocessor_config.json."""
PRE_NORM = partial(DetrConfig, norm="pre")


def original(folder: Path, *, kind: partial[DetrConfig] = PRE_NORM) -> Path:
    """Save a file as facebookresearch's code does, of 91 classes."""
    tensors = DETR_ORIGINAL.to_published(tiny_network(num_classes=91, kind=kind).state_dict())
    assert "transformer.encoder.norm.weight" in tensors
    torch.save({"model": tensors}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def test_the_original_file(tmp_path: Path) -> None:
    model = load_checkpoint(find(str(original(tmp_path))))
    config = model.network.config
    assert type(config) is DetrConfig
    assert config.norm == "pre"
    assert model.class_names == COCO
    assert model.preprocessing.resize == ShortestEdge(800, 1333)
    assert criterion_for(config) is DETR_CRITERION
    assert fine_tuning_config(model.network) is DETR_FINE_TUNING
    ours, written = model.network.state_dict(), tiny_network(num_classes=91, kind=PRE_NORM).state_dict()
    assert ours.keys() == written.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in written.items())


@pytest.mark.parametrize(
    ("model_type", "block", "kind", "rule"),
    [
        ("detr", "bottleneck", DetrConfig, ShortestEdge(800, 1333)),
        ("table-transformer", "bottleneck", TableTransformerConfig, ExactLongestEdge(800, 800)),
        (None, "bottleneck", DetrConfig, ShortestEdge(800, 1333)),
        (None, "basic", TableTransformerConfig, ExactLongestEdge(800, 800)),
    ],
)
def test_a_table_transformer_has_basic_blocks_or_a_config_that_says_so(
    model_type: str | None, block: str, kind: type[DetrConfig], rule: ShortestEdge, tmp_path: Path
) -> None:
    network = tiny_network(kind=partial(PRE_NORM, block=block))
    save_file(DETR_ORIGINAL.to_published(network.state_dict()), tmp_path / "model.safetensors")
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    model = load_checkpoint(find(str(tmp_path / "model.safetensors")))
    config = model.network.config
    assert type(config) is kind
    assert (config.norm, config.block) == ("pre", block)
    assert model.preprocessing.resize == rule


@pytest.mark.slow  # another export, ten seconds
def test_it_is_exported(tmp_path: Path) -> None:
    model = load_checkpoint(find(str(original(tmp_path))), size=128)
    export_onnx(model, tmp_path / "model.onnx", source="tests")
    image = fill.image(0, 160, 120)
    detectors = [
        detrcli.load(tmp_path / name, device="cpu", precision="fp32", size=128)
        for name in ("checkpoint.pth", "model.onnx")
    ]
    (ours,), (theirs,) = (detector.predict(image, threshold=0) for detector in detectors)
    assert len(ours) == 5
    assert ours.names == theirs.names
    torch.testing.assert_close(torch.tensor(theirs.boxes), torch.tensor(ours.boxes), rtol=0, atol=0.01)
    torch.testing.assert_close(torch.tensor(theirs.scores), torch.tensor(ours.scores), rtol=0, atol=1e-4)


def test_it_is_refused_before_it_is_trained_for_it_could_not_be_saved(tmp_path: Path) -> None:
    path = original(tmp_path)
    message = "a DETR with pre-norm cannot be saved"
    with pytest.raises(ModelError, match=message):
        save_model(load_checkpoint(find(str(path))), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ModelError, match=message):
        pretrained(str(path), ("cat", "dog"), size=None, revision=None, offline=True, class_names=None, seed=0)
