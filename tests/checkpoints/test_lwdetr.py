"""LW-DETR's configuration, class names and resize rule from its files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import detrcli
from detrcli.checkpoints.dataset_classes import OBJECTS365
from detrcli.checkpoints.find import Checkpoint, find
from detrcli.checkpoints.layouts import LWDETR_HUB, LWDETR_ORIGINAL, Layout
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.lwdetr import read_config
from detrcli.checkpoints.names import KNOWN_MODELS, known_model
from detrcli.errors import ImageSizeError, ModelError, ModelWarning
from detrcli.images.resize import Exactly
from detrcli.models.lwdetr import SIZES, LwDetr, LwDetrConfig

from .. import fill, scenes
from ..places import DATA

ODD = LwDetrConfig(
    5, vit_dim=48, vit_heads=4, vit_depth=3, window_blocks=(1,), features=(0, 2), vit_positions=10, scales=(2, 0.5),
    c2f_depth=1, hidden_dim=64, num_queries=11, num_groups=2, decoder_layers=2, self_heads=4, cross_heads=8, points=3,
    feedforward=32,
)  # fmt: skip
"""An unpublished size."""
ODD_JSON: dict[str, Any] = {
    "model_type": "lw_detr",
    "backbone_config": {"num_attention_heads": 4, "window_block_indices": [1], "out_indices": [1, 3]},
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 8,
    "id2label": {str(label): f"thing {label}" for label in range(5)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = LwDetr(ODD)
    torch.nn.init.normal_(network.class_head.weight)
    save_file(LWDETR_HUB.to_published(network.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(ODD_JSON))
    return tmp_path


def test_an_unpublished_size(folder: Path) -> None:
    loaded = load_checkpoint(find(str(folder)))
    assert loaded.network.config == ODD
    assert loaded.class_names == ("thing 0", "thing 1", "thing 2", "thing 3", "thing 4")
    assert loaded.preprocessing.resize == Exactly(640, 640)
    detector = detrcli.load(folder, device="cpu", precision="fp32", size=(192, 128))
    (found,) = detector.predict(fill.image(1, 90, 120), threshold=0.01)
    assert len(found) > 0
    assert (found.boxes <= np.array([120, 90, 120, 90])).all()


def test_blocks_counted_from_the_end(folder: Path) -> None:
    backbone = ODD_JSON["backbone_config"] | {"out_indices": [-3, -1]}
    (folder / "config.json").write_text(json.dumps(ODD_JSON | {"backbone_config": backbone}))
    assert load_checkpoint(find(str(folder))).network.config == ODD


@pytest.mark.parametrize("size", [100, (640, 600), (96, 64)])
def test_unsupported_image_sizes(folder: Path, size: int | tuple[int, int]) -> None:
    width, height = (size, size) if isinstance(size, int) else size
    with pytest.raises(ModelError, match=rf"multiples of 64, not {width} × {height}; "):
        load_checkpoint(find(str(folder)), size=size)


def test_an_unsupported_resize_rule(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 640}}')
    with pytest.raises(ImageSizeError, match=r"config\.json is impossible: .* 64, not a shorter side"):
        load_checkpoint(find(str(folder)))
    assert load_checkpoint(find(str(folder)), size=128).preprocessing.resize == Exactly(128, 128)


def test_a_warning_if_the_files_have_no_size(folder: Path) -> None:
    with pytest.warns(ModelWarning, match=rf"{folder.name} has no preprocessor_config.json; .* resized to 640 × 640"):
        load_checkpoint(find(str(folder)))
    (folder / "preprocessor_config.json").write_text('{"do_resize": false, "size": {"height": 320, "width": 320}}')
    with pytest.warns(
        ModelWarning, match=r"has do_resize = false in its preprocessor_config.json; images are resized to 640 × 640"
    ):
        load_checkpoint(find(str(folder)))


@pytest.mark.filterwarnings("error")
def test_no_warning_if_the_size_is_known(folder: Path) -> None:
    assert load_checkpoint(find(str(folder)), size=128).preprocessing.resize == Exactly(128, 128)
    (folder / "preprocessor_config.json").write_text('{"do_resize": false}')
    assert load_checkpoint(find(str(folder)), size=128).preprocessing.resize == Exactly(128, 128)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 320, "width": 320}}')
    assert load_checkpoint(find(str(folder))).preprocessing.resize == Exactly(320, 320)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "gelu"}, "activation_function = 'gelu'"),
        ({"batch_norm_eps": 1e-3}, "batch_norm_eps = 0.001"),
        ({"decoder_cross_attention_heads": 0}, "decoder_cross_attention_heads = 0"),
        ({"decoder_self_attention_heads": 5}, "decoder_self_attention_heads = 5; it must divide the width 64"),
        ({"backbone_config": {}}, "a ViT of 3 blocks"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"num_windows": 4}}, "num_windows = 4"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"layer_norm_eps": 0.1}}, "layer_norm_eps = 0.1"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"num_attention_heads": 7}}, "num_attention_heads = 7"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": [0, 3]}}, "out_indices = [0, 3]"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": [1, 4]}}, "out_indices = [1, 4]"),
        ({"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": [-5, 3]}}, "out_indices = [-5, 3]"),
        (
            {"backbone_config": ODD_JSON["backbone_config"] | {"out_indices": [1, 2, 3]}},
            "do not match the network: missing",
        ),
    ],
)
def test_unsupported_settings(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "config.json").write_text(json.dumps(ODD_JSON | changes))
    with pytest.raises(ModelError) as caught:
        load_checkpoint(find(str(folder)))
    assert message in str(caught.value)


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_a_published_config(size: str, tmp_path: Path) -> None:
    shapes = json.loads((DATA / f"lwdetr-{size}.hub.keys.json").read_text())
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    assert load_checkpoint(find(str(tmp_path / "model.safetensors"))).network.config == SIZES[size]
    (tmp_path / "config.json").write_text((DATA / f"lwdetr-{size}.hub.config.json").read_text())
    assert load_checkpoint(find(str(tmp_path))).network.config == SIZES[size]


@pytest.mark.parametrize("layout", [LWDETR_ORIGINAL, LWDETR_HUB], ids=lambda layout: layout.title)
def test_the_published_sizes_are_known_by_their_tensors(layout: Layout) -> None:
    for size in ("tiny", "small", "medium", "large", "xlarge"):
        with torch.device("meta"):
            published = layout.to_published(LwDetr(SIZES[size]).state_dict())
        assert read_config(Checkpoint(size, Path(size), None, None), layout.to_ours(published)[0]) == SIZES[size]


def test_a_convolution_before_upsampling(folder: Path) -> None:
    network = LwDetr(replace(ODD, reduce_before_upsampling=True))
    for layout in (LWDETR_ORIGINAL, LWDETR_HUB):
        save_file(layout.to_published(network.state_dict()), folder / "model.safetensors")
        loaded = load_checkpoint(find(str(folder))).network
        assert loaded.config == network.config
        tensors = loaded.state_dict()
        assert tensors["projector.stages.0.resamplers.0.1.weight"].shape == (24, 12, 2, 2)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in network.state_dict().items())


def test_every_size_has_the_published_number_of_parameters() -> None:
    for size, config in SIZES.items():
        known = known_model(f"lwdetr-{size}")
        if size == "nano":  # this project's own
            config, known = replace(config, num_classes=len(scenes.CLASSES)), known_model("demo")
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in LwDetr(config).parameters())
        assert known is not None
        assert count / 1e6 == pytest.approx(known.parameters, rel=0.01)


def test_class_names_of_objects365() -> None:
    assert len(OBJECTS365) == 366
    assert (OBJECTS365[1], OBJECTS365[133], OBJECTS365[140]) == ("Person", "Remote", "Cat")
    assert {model.classes for model in KNOWN_MODELS} == {"COCO", "Objects365", "PubTables-1M", "shapes"}
