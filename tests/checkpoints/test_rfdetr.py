"""RF-DETR's configuration, class names and image size from the files of its authors and of the Hub."""

import argparse
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import Checkpoint, find, hub_repository
from detrcli.checkpoints.layouts import RFDETR_NATIVE, RFDETR_ORIGINAL
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.names import known_model
from detrcli.checkpoints.rfdetr import read_config, resize
from detrcli.checkpoints.save import save_model
from detrcli.classes import UNUSED
from detrcli.errors import ClassNamesWarning, ImageSizeError, ModelError, ModelWarning
from detrcli.images.resize import BilinearSampling, Exactly, PillowFilter
from detrcli.models.rfdetr import SIZES, RfDetr, RfDetrConfig
from detrcli.training.initial_model import ARCHITECTURES

from ..places import DATA
from .test_layouts import layout_of, shapes

ODD = RfDetrConfig(
    4, vit_dim=48, vit_heads=4, vit_depth=4, window_blocks=(0, 2, 3), features=(0, 3), vit_positions=5, patch=12,
    windows=3, c2f_depth=1, hidden_dim=64, num_queries=11, num_groups=2, decoder_layers=2, self_heads=4, cross_heads=8,
    points=3, feedforward=32,
)  # fmt: skip
"""An unpublished size."""
SMALL = replace(
    ODD, vit_depth=12, vit_heads=1, vit_dim=64, vit_positions=4, window_blocks=SIZES["nano"].window_blocks,
    features=SIZES["nano"].features, patch=16, windows=2, self_heads=2, cross_heads=4, points=6,
)  # fmt: skip
"""The blocks and patches of the published sizes, but narrower."""
ODD_JSON: dict[str, Any] = {
    "model_type": "rf_detr",
    "backbone_config": {"num_attention_heads": 4, "out_indices": [1, 4], "num_windows": 3, "patch_size": 12},
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 8,
    "id2label": {str(label): f"thing {label}" for label in range(4)},
}


def weights(config: RfDetrConfig) -> dict[str, Tensor]:
    """Make random weights in the original layout, no two tensors alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = RfDetr(config)
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    return RFDETR_ORIGINAL.to_published(network.state_dict())


ORIGINAL = weights(SMALL)
OTHER = {name: tensor + 1 for name, tensor in ORIGINAL.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def load(path: Path) -> LoadedModel:
    return load_checkpoint(find(str(path)))


def is_original(loaded: LoadedModel) -> bool:
    tensors = RFDETR_ORIGINAL.to_published(loaded.network.state_dict())
    return tensors.keys() == ORIGINAL.keys() and all(torch.equal(tensors[name], ORIGINAL[name]) for name in tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(weights(ODD), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(ODD_JSON))
    size = {"size": {"height": 72, "width": 108}, "image_processor_type": "RfDetrImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(size))
    return tmp_path


def test_an_unpublished_size(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.network.config == ODD
    assert loaded.class_names == ("thing 0", "thing 1", "thing 2", "thing 3")
    assert loaded.preprocessing.resize == Exactly(108, 72)
    assert loaded.preprocessing.resample == BilinearSampling()


def test_settings_are_read_from_config_json(folder: Path) -> None:
    backbone = ODD_JSON["backbone_config"] | {
        "window_block_indexes": [1],
        "out_indices": None,
        "out_features": ["stage2"],
    }
    (folder / "config.json").write_text(json.dumps(ODD_JSON | {"backbone_config": backbone}))
    config = replace(ODD, features=(1,), window_blocks=(1,))
    save_file(weights(config), folder / "model.safetensors")
    assert load(folder).network.config == config


def test_the_default_names_of_transformers_are_no_names(folder: Path) -> None:
    names = {"id2label": {str(label): f"LABEL_{label}" for label in range(91)}}
    (folder / "config.json").write_text(json.dumps(ODD_JSON | names))
    save_file(weights(replace(ODD, num_classes=91)), folder / "model.safetensors")
    assert load(folder).class_names == COCO


def test_an_antialiasing_processor_is_obeyed(folder: Path) -> None:
    settings = {"size": {"height": 72, "width": 108}, "image_processor_type": "DetrImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = load(folder)
    assert isinstance(loaded.preprocessing.resample, PillowFilter)
    save_model(loaded, folder / "saved")
    assert load(folder / "saved").preprocessing == loaded.preprocessing


@pytest.mark.parametrize("size", [100, (72, 40)])
def test_image_sizes_are_multiples_of_patches_and_windows(folder: Path, size: int | tuple[int, int]) -> None:
    width, height = (size, size) if isinstance(size, int) else size
    with pytest.raises(ModelError, match=rf"multiples of 36, not {width} × {height}; "):
        load_checkpoint(find(str(folder)), size=size)
    assert load_checkpoint(find(str(folder)), size=180).preprocessing.resize == Exactly(180, 180)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "relu"}, "activation_function = 'relu'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps = 1e-06"),
        ({"backbone_config": {}}, "no published RF-DETR has patches of 12 pixels and a ViT of 4 blocks"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"patch_size": 16}}, "patch_size = 16"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"num_windows": 0}}, "num_windows = 0"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": [1, 5]}}, "out_indices = [1, 5]"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": "ab"}}, "do not fit RF-DETR"),
        ({"architectures": ["RfDetrForInstanceSegmentation"]}, "RF-DETR for instance segmentation"),
    ],
)
def test_unsupported_settings(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "config.json").write_text(json.dumps(ODD_JSON | changes))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize("file", ["rfdetr-nano", "rfdetr-nano.native", "rfdetr-nano.native-2026-04"])
def test_a_published_config(file: str) -> None:
    settings = json.loads((DATA / "rfdetr-nano.config.json").read_text())
    published = {name: torch.empty(shape, device="meta") for name, shape in shapes(file).items()}
    tensors, _ = layout_of(file).to_ours(published)
    for config in (settings, None):
        assert read_config(Checkpoint("nano", Path("model.safetensors"), config, None), tensors) == SIZES["nano"]


@pytest.mark.parametrize(
    ("size", "side"),
    [("nano", 384), ("small", 512), ("medium", 576), ("large", 704), ("base", 560), ("large-2025", 560)],
)
def test_a_published_file_without_settings(size: str, side: int) -> None:
    arguments = {"pretrain_weights": "none", "resolution": None, "num_windows": None}
    with torch.device("meta"):
        tensors = RfDetr(SIZES[size]).state_dict()
    config = read_config(Checkpoint(size, Path("weights.pth"), None, None, arguments), tensors)
    assert config == SIZES[size]
    assert resize(config) == Exactly(side, side)


def test_a_published_file_names_no_classes(tmp_path: Path) -> None:
    tensors = weights(replace(SMALL, num_classes=91))
    path = saved(tmp_path / "weights.pth", {"model": tensors, "args": argparse.Namespace(pretrain_weights="none")})
    with pytest.warns(ModelWarning, match="no preprocessor_config.json; images are resized to 64 × 64"):
        assert load(path).class_names == COCO


def test_a_file_of_the_authors_training(tmp_path: Path) -> None:
    content = {
        "model": ORIGINAL | {"_kp_active_mask": torch.zeros(0, 0, dtype=torch.bool)},
        "args": {"class_names": ["cat", "dog", "cow"], "resolution": None, "notes": None},
        "model_name": "RFDETRNano",
        "model_config": {"resolution": 96, "num_classes": 3, "num_windows": 2, "out_feature_indexes": [3, 6, 9, 12]},
        "rfdetr_version": "1.11.2",
        "state_dict": {f"model.{name}": tensor for name, tensor in ORIGINAL.items()},
        "optimizer_states": [],
        "callbacks": {"EMA": {"average_model_state_dict": {f"module.model.{name}": t for name, t in OTHER.items()}}},
    }
    path = saved(tmp_path / "checkpoint_best_total.pth", content)
    with warnings.catch_warnings(action="error"):
        loaded = load(path)
    assert loaded.network.config == SMALL
    assert is_original(loaded)
    assert loaded.class_names == ("cat", "dog", "cow", UNUSED)
    assert loaded.preprocessing.resize == Exactly(96, 96)


def test_the_settings_of_a_file_win_over_those_of_the_published_sizes(tmp_path: Path) -> None:
    arguments = argparse.Namespace(num_windows=1, out_feature_indexes=[2, 4, 6, 8], sa_nheads=4, resolution=80)
    loaded = load(saved(tmp_path / "weights.pth", {"model": ORIGINAL, "args": arguments}))
    assert loaded.network.config == replace(
        SMALL, windows=1, features=(1, 3, 5, 7), window_blocks=(0, 1, 3, 5, 7), self_heads=4
    )
    assert loaded.preprocessing.resize == Exactly(80, 80)


def test_the_ema_of_the_older_training_is_preferred(tmp_path: Path) -> None:
    content = {"model": OTHER, "ema_model": ORIGINAL, "args": argparse.Namespace(resolution=64), "epoch": 3}
    assert is_original(load(saved(tmp_path / "checkpoint.pth", content)))


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_a_lightning_checkpoint(prefix: str, tmp_path: Path) -> None:
    content = {
        "state_dict": {prefix + name: tensor for name, tensor in ORIGINAL.items()}
        | {prefix + "_kp_active_mask": torch.zeros(0, 0, dtype=torch.bool)},
        "callbacks": {"ModelCheckpoint": {"best_k_models": {}}},
        "hyper_parameters": {"class_names": ["cat", "dog", "cow", "owl"], "resolution": 64},
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
    }
    loaded = load(saved(tmp_path / "last.ckpt", content))
    assert is_original(loaded)
    assert loaded.class_names == ("cat", "dog", "cow", "owl")
    assert loaded.preprocessing.resize == Exactly(64, 64)


@pytest.mark.parametrize(
    ("arguments", "labels", "warning"),
    [
        ({}, ("cat", "dog", "cow", UNUSED), None),
        ({"dataset_file": "roboflow"}, ("cat", "dog", "cow", UNUSED), None),
        ({"dataset_file": "yolo", "set_cost_class": 2}, ("cat", "dog", "cow", UNUSED), None),
        ({"dataset_file": "roboflow", "set_cost_class": 2}, (UNUSED, "cat", "dog", "cow"), "may be off by one$"),
        ({"dataset_file": "coco", "set_cost_class": 2}, (UNUSED, "cat", "dog", "cow"), "may be off by one$"),
        ({"dataset_file": "coco"}, (UNUSED, "cat", "dog", "cow"), "may be off by one$"),
        ({"dataset_file": "coco", "class_names": ["", "cat", "dog", "cow"]}, (UNUSED, "cat", "dog", "cow"), None),
        ({"class_names": ["cat", "dog"]}, ("cat", "dog", "class 2", "class 3"), "names only 2 of its 4 classes$"),
        ({"class_names": list("abcde")}, ("class 0", "class 1", "class 2", "class 3"), "does not name its 4 classes$"),
    ],
)
def test_the_labels_of_the_trained_classes(
    arguments: dict[str, Any], labels: tuple[str, ...], warning: str | None, tmp_path: Path
) -> None:
    arguments = {"class_names": ["cat", "dog", "cow"], "resolution": 64} | arguments
    path = saved(tmp_path / "weights.pth", {"model": ORIGINAL, "args": argparse.Namespace(**arguments)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load(path).class_names == labels
    assert [one.category for one in caught] == [ClassNamesWarning] * (warning is not None)
    assert warning is None or re.search(warning, str(caught[0].message))


@pytest.mark.parametrize("names", [[], [name for name in COCO if name != UNUSED]])
def test_labels_are_cocos_unless_the_file_names_others(names: list[str], tmp_path: Path) -> None:
    tensors = weights(replace(SMALL, num_classes=91))
    path = saved(tmp_path / "weights.pth", {"model": tensors, "args": {"class_names": names, "resolution": 64}})
    assert load(path).class_names == COCO
    path = saved(path, {"model": tensors, "args": {"class_names": ["person", "car"], "resolution": 64}})
    with pytest.warns(ClassNamesWarning, match="names only 2 of its 91 classes$"):
        assert load(path).class_names[:4] == ("person", "car", "class 2", "class 3")


def test_an_impossible_trained_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", {"model": ORIGINAL, "model_config": {"resolution": 100}})
    with pytest.raises(ImageSizeError, match=r"weights\.pth is impossible: .* 100 × 100; 96 × 96"):
        load(path)
    assert load_checkpoint(find(str(path)), size=64).preprocessing.resize == Exactly(64, 64)


def test_the_ema_of_a_lightning_checkpoint_is_preferred(tmp_path: Path) -> None:
    average = {f"module.model.{name}": tensor for name, tensor in ORIGINAL.items()} | {"n_averaged": torch.tensor(9)}
    content = {
        "state_dict": {f"model.{name}": tensor for name, tensor in OTHER.items()},
        "callbacks": {"EMA": {"average_model_state_dict": average}},
        "hyper_parameters": {"resolution": 64},
    }
    assert is_original(load(saved(tmp_path / "last.ckpt", content)))


@pytest.mark.parametrize(("argument", "value"), [("sa_nheads", 5), ("out_feature_indexes", [3, 99])])
def test_errors_name_the_training_arguments(argument: str, value: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", {"model": ORIGINAL, "args": {argument: value}})
    says = rf"^the training arguments in {re.escape(str(path))} say {argument} = {re.escape(str(value))}; "
    with pytest.raises(ModelError, match=says):
        load(path)


def test_transformers_own_names(tmp_path: Path) -> None:
    ours, _ = RFDETR_ORIGINAL.to_ours(ORIGINAL)
    loaded = load(saved(tmp_path / "weights.pth", RFDETR_NATIVE.to_published(ours)))
    assert is_original(loaded)


@pytest.mark.parametrize("size", SIZES)
def test_the_known_models_have_the_published_number_of_parameters(size: str) -> None:
    known = known_model(f"rfdetr-{size}")
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in RfDetr(SIZES[size]).parameters())
    assert known is not None
    assert count / 1e6 == pytest.approx(known.parameters, rel=0.01)


def test_there_are_two_large_ones() -> None:
    assert hub_repository("rfdetr-large-2025") is None
    assert ARCHITECTURES["rfdetr-large-2025"].resize == Exactly(560, 560)
    assert hub_repository("rfdetr-large") == "Roboflow/rf-detr-large"
