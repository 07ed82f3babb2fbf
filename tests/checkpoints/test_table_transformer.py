"""Table Transformer gives the golden outputs in all layouts, and has the published class names and resize rules."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detrcli.checkpoints.dataset_classes import TABLE_STRUCTURE, TABLES
from detrcli.checkpoints.families import DETR, TABLE_TRANSFORMER
from detrcli.checkpoints.find import find
from detrcli.checkpoints.layouts import (
    DETR_HUB_TIMM,
    DETR_ORIGINAL,
    TABLE_TRANSFORMER_HUB,
    TABLE_TRANSFORMER_ORIGINAL,
    Layout,
)
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.names import KNOWN_MODELS
from detrcli.errors import ModelError
from detrcli.images.resize import ExactLongestEdge, ResizeRule
from detrcli.models.detr import Detr
from detrcli.models.table_transformer import DETECTION, STRUCTURE, TableTransformerConfig

from .. import fill, golden
from ..places import DATA
from ..tiny import tiny_network

NAME = "table-transformer-detection"
OLD_PREPROCESSOR = {"do_resize": True, "size": 800, "max_size": 800, "do_normalize": True, "format": "coco_detection"}
IMAGENET = {"id2label": {str(label): f"ImageNet class {label}" for label in range(1000)}}


def published(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DATA / f"{NAME}.{kind}-backbone.config.json").read_text())
    return config


def keys(kind: str) -> dict[str, list[int]]:
    content: dict[str, list[int]] = json.loads((DATA / f"{NAME}.{kind}-backbone.keys.json").read_text())
    return content


def written(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], settings: dict[str, Any]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def check_outputs(model: LoadedModel, name: str) -> None:
    expected = golden.outputs(name)
    network = model.network.double()
    for case in golden.CASES:
        with torch.inference_mode():
            predictions = network(*golden.batch(golden.images(name, case), torch.float64))
        np.testing.assert_allclose(predictions.logits, expected[f"{case}.pred_logits"], rtol=0, atol=2e-5)
        np.testing.assert_allclose(predictions.boxes, expected[f"{case}.pred_boxes"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kind", "layout"), [("timm", DETR_HUB_TIMM), ("hf", TABLE_TRANSFORMER_HUB)])
def test_folders_in_the_layouts_of_the_hub(kind: str, layout: Layout, tmp_path: Path) -> None:
    original = {
        name: torch.from_numpy(value) for name, value in fill.state_dict(str(DATA / f"{NAME}.keys.json")).items()
    }
    tensors = layout.to_published(TABLE_TRANSFORMER_ORIGINAL.to_ours(original)[0])
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == keys(kind)
    config = published(kind)
    if kind == "timm":  # as in the published file
        for stage in (2, 3, 4):
            tensors[f"model.backbone.conv_encoder.model.layer{stage}.0.downsample.1.num_batches_tracked"] = (
                torch.tensor(7)
            )
        config |= {"backbone": "resnet18", "backbone_config": None, "use_timm_backbone": True}
    else:
        config["backbone_config"] |= IMAGENET
    model = load_checkpoint(find(str(written(tmp_path / "model", tensors, config, OLD_PREPROCESSOR))))
    assert model.network.config == DETECTION
    assert model.class_names == TABLES
    assert model.preprocessing.resize == ExactLongestEdge(800, 800)
    check_outputs(model, NAME)


def test_weights_filled_by_the_names_of_the_hub(tmp_path: Path) -> None:
    """The outputs are those of transformers, which has read these names itself."""
    tensors = {name: torch.from_numpy(fill.fill(name, tuple(shape))) for name, shape in keys("timm").items()}
    folder = written(tmp_path / "model", tensors, published("timm"), OLD_PREPROCESSOR)
    check_outputs(load_checkpoint(find(str(folder))), f"{NAME}.hub-fill")


def small(count: int = 2, num_queries: int = 15) -> dict[str, Tensor]:
    """Tensors of a small network, by the names of the original."""
    network = Detr(
        TableTransformerConfig(
            count, num_queries, depths=(1, 1, 1, 1), hidden_dim=32, feedforward=32, encoder_layers=1, decoder_layers=1
        )
    )
    return TABLE_TRANSFORMER_ORIGINAL.to_published(network.state_dict())


@pytest.mark.parametrize("wrapped", [False, True])
def test_original_files(wrapped: bool, tmp_path: Path) -> None:
    tensors = small()
    content = {"epoch": 3, "model_state_dict": tensors, "optimizer_state_dict": {"state": {}}} if wrapped else tensors
    torch.save(content, tmp_path / "model_20.pth")
    model = load_checkpoint(find(str(tmp_path / "model_20.pth")))
    assert isinstance(model.network.config, TableTransformerConfig)
    ours = model.network.state_dict()
    assert all(
        torch.equal(tensor, ours[name]) for name, tensor in TABLE_TRANSFORMER_ORIGINAL.to_ours(tensors)[0].items()
    )
    assert model.class_names == TABLES


@pytest.mark.parametrize(
    ("count", "num_queries", "names", "rule"),
    [
        (2, 15, TABLES, ExactLongestEdge(800, 800)),
        (6, 125, TABLE_STRUCTURE, ExactLongestEdge(800, 1000)),
        (3, 15, ("class 0", "class 1", "class 2"), ExactLongestEdge(800, 800)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_without_class_names_and_sizes(
    count: int, num_queries: int, names: tuple[str, ...], rule: ResizeRule, tmp_path: Path
) -> None:
    torch.save(small(count, num_queries), tmp_path / "lone.pth")
    model = load_checkpoint(find(str(tmp_path / "lone.pth")))
    assert model.class_names == names
    assert model.preprocessing.resize == rule
    assert load_checkpoint(find(str(tmp_path / "lone.pth")), size=600).preprocessing.resize == ExactLongestEdge(
        600, 600
    )
    config = {"model_type": "table-transformer", "backbone_config": {"model_type": "resnet"} | IMAGENET}
    folder = written(tmp_path / "folder", small(count, num_queries), config, {"size": 800, "max_size": 800})
    assert load_checkpoint(find(str(folder))).class_names == names


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"size": 800, "max_size": 1000}, ExactLongestEdge(800, 1000)),
        ({"size": {"shortest_edge": 800, "longest_edge": 1000}}, ExactLongestEdge(800, 1000)),
        ({"size": {"longest_edge": 800}}, ExactLongestEdge(800, 800)),  # v1.1
    ],
)
def test_published_sizes(settings: dict[str, Any], rule: ResizeRule, tmp_path: Path) -> None:
    config = {"model_type": "table-transformer", "id2label": {"0": "a", "1": "b"}}
    model = load_checkpoint(find(str(written(tmp_path / "model", small(), config, settings))))
    assert model.preprocessing.resize == rule


def test_a_detr_of_as_many_classes_does_not_detect_tables(tmp_path: Path) -> None:
    torch.save(DETR_ORIGINAL.to_published(tiny_network(num_classes=2).state_dict()), tmp_path / "lone.pth")
    with pytest.warns(UserWarning, match="does not name its 2 classes"):
        model = load_checkpoint(find(str(tmp_path / "lone.pth")))
    assert model.class_names == ("class 0", "class 1")


def test_a_config_of_another_family_is_refused(tmp_path: Path) -> None:
    tables, things = small(), DETR_ORIGINAL.to_published(tiny_network().state_dict())
    for tensors, model_type, own, other in (
        (tables, "detr", TABLE_TRANSFORMER.name, DETR.name),
        (things, "table-transformer", DETR.name, TABLE_TRANSFORMER.name),
    ):
        folder = written(tmp_path / model_type, tensors, {"model_type": model_type}, {})
        with pytest.raises(ModelError, match=f"is {own}, but its config.json describes {other}$"):
            load_checkpoint(find(str(folder)))


def test_known_models_have_the_published_number_of_parameters() -> None:
    for model in KNOWN_MODELS:
        if model.name.startswith("table-transformer"):
            with torch.device("meta"):
                network = Detr(DETECTION if model.name == NAME else STRUCTURE)
            count = sum(parameter.numel() for parameter in network.parameters())
            assert count / 1e6 == pytest.approx(model.parameters, abs=0.1)
            assert model.license == "MIT"
