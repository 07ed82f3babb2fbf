"""Saved models load again, here and in transformers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from detrcli.checkpoints.detr import TIMM_RESNETS
from detrcli.checkpoints.families import family_of
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.checkpoints.save import save_model
from detrcli.errors import ModelError
from detrcli.images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    Resample,
    ResizeRule,
    ShortestEdge,
    Within,
    resize_image,
)
from detrcli.inference.postprocess import EndToEnd
from detrcli.models.detr import Detr, DetrConfig
from detrcli.models.lwdetr import SIZES, LwDetr
from detrcli.models.resnet import BlockKind
from detrcli.models.rfdetr import RfDetr, RfDetrConfig
from detrcli.models.table_transformer import TableTransformerConfig
from detrcli.training.initialize import initialize

from ..training.small import small_lwdetr, small_rfdetr

SMALL_DETR = DetrConfig(3, num_queries=4, depths=(1, 2, 1, 1), hidden_dim=32, feedforward=48, encoder_layers=2)
SMALL_TABLE_TRANSFORMER = TableTransformerConfig(
    3, num_queries=4, depths=(1, 2, 1, 1), hidden_dim=32, feedforward=48, encoder_layers=2
)
NANO = dataclasses.replace(SIZES["nano"], num_classes=3, num_groups=2)
TWO_SCALES = dataclasses.replace(NANO, scales=(2, 0.5), points=4, vit_dim=64, c2f_depth=1)
RFDETR = RfDetrConfig(
    3, vit_dim=24, vit_heads=2, vit_depth=3, window_blocks=(0, 2), features=(0, 2), vit_positions=5, patch=8,
    windows=2, c2f_depth=2, hidden_dim=32, num_queries=7, num_groups=2, self_heads=2, cross_heads=4, feedforward=48,
)  # fmt: skip
NETWORKS: dict[str, tuple[Detr | LwDetr, ResizeRule]] = {
    "detr": (Detr(SMALL_DETR), ShortestEdge(96, 160)),
    "detr-dc5": (Detr(dataclasses.replace(SMALL_DETR, depths=(3, 4, 6, 3), dilation=True)), ShortestEdge(96, None)),
    "table-transformer": (Detr(SMALL_TABLE_TRANSFORMER), ExactLongestEdge(96, 96)),
    "nano": (LwDetr(NANO), Exactly(128, 64)),
    "two-scales": (LwDetr(TWO_SCALES), Exactly(128, 128)),
    "rfdetr": (RfDetr(RFDETR), Exactly(128, 64)),
}


@pytest.fixture(params=NETWORKS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LoadedModel, Path]:
    network, rule = NETWORKS[request.param]
    torch.manual_seed(0)
    initialize(network)
    for parameter in network.parameters():  # so that all tensors differ and none is zero
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.get_buffer("running_mean"))
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return saved_as(network, rule, tmp_path / "model"), tmp_path / "model"


def saved_as(network: Detr | LwDetr, rule: ResizeRule, folder: Path) -> LoadedModel:
    rules = Preprocessing(rule, family_of(network.config).resample, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    model = LoadedModel("model", network.eval(), ("cat", "dog", "a cow"), rules)
    save_model(model, folder)
    return model


def test_it_loads_again(saved: tuple[LoadedModel, Path]) -> None:
    model, folder = saved
    loaded = load_checkpoint(find(str(folder)))
    assert loaded.class_names == model.class_names
    assert loaded.preprocessing == model.preprocessing
    assert loaded.network.config == model.network.config
    before, after = model.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_transformers_predicts_the_same(saved: tuple[LoadedModel, Path]) -> None:
    model, folder = saved
    theirs = AutoModelForObjectDetection.from_pretrained(folder).eval()
    assert theirs.config.id2label == {0: "cat", 1: "dog", 2: "a cow"}
    pixels = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        expected, predicted = theirs(pixels), model.network(pixels)
    # the norms of transformers' RF-DETR projector have another epsilon than its authors'
    tolerance = 1e-3 if isinstance(model.network, RfDetr) else 1e-4
    torch.testing.assert_close(predicted.boxes, expected.pred_boxes, rtol=0, atol=tolerance)
    torch.testing.assert_close(predicted.logits, expected.logits, rtol=0, atol=tolerance)
    if isinstance(model.network, Detr):
        padding = torch.zeros(2, 128, 128, dtype=torch.bool)
        padding[1, 90:], padding[1, :, 70:] = True, True
        pixels = pixels.masked_fill(padding[:, None], 0)
        with torch.inference_mode():
            expected, predicted = theirs(pixels, (~padding).long()), model.network(pixels, padding)
        torch.testing.assert_close(predicted.boxes, expected.pred_boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("native", [False, True])
def test_an_rfdetr_that_transformers_saves_loads_again(native: bool, tmp_path: Path) -> None:
    network, rule = NETWORKS["rfdetr"]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    saved_as(network, rule, tmp_path / "ours")
    theirs = AutoModelForObjectDetection.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", save_original_format=not native)
    loaded = load_checkpoint(find(str(tmp_path / "theirs")))
    assert loaded.network.config == network.config
    assert loaded.class_names == ("cat", "dog", "a cow")
    before, after = network.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.save(theirs.state_dict(), tmp_path / "memory.pth")
    (tmp_path / "config.json").write_bytes((tmp_path / "theirs" / "config.json").read_bytes())
    after = load_checkpoint(find(str(tmp_path / "memory.pth"))).network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_rfdetr_of_two_scales_loads_here_only(tmp_path: Path) -> None:
    config = dataclasses.replace(RFDETR, scales=(2, 0.5))
    saved_as(RfDetr(config), Exactly(64, 64), tmp_path)
    assert load_checkpoint(find(str(tmp_path))).network.config == config
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForObjectDetection.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("detr", ShortestEdge(96, 160)),
        ("detr", ShortestEdge(96, None)),
        ("detr", Within(120, 90)),
        ("detr", Exactly(64, 96)),
        ("table-transformer", ExactLongestEdge(96, 96)),
        ("nano", Exactly(128, 64)),
        ("rfdetr", Exactly(128, 64)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_transformers_resizes_images_the_same_way(name: str, rule: ResizeRule, tmp_path: Path) -> None:
    saved_as(NETWORKS[name][0], rule, tmp_path)
    assert load_checkpoint(find(str(tmp_path))).preprocessing.resize == rule
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for size in ((64, 48), (100, 320), (600, 30)):
        width, height = rule.size(*size)
        assert processor(Image.new("RGB", size), return_tensors="pt").pixel_values.shape == (1, 3, height, width)


@pytest.mark.parametrize("resample", [BilinearSampling(), PILLOW_BILINEAR], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("make", [small_lwdetr, small_rfdetr], ids=lambda make: make.__name__)
def test_transformers_sees_the_same_pixels(
    make: Callable[..., LoadedModel], resample: Resample, tmp_path: Path
) -> None:
    rules = Preprocessing(Exactly(128, 64), resample)
    save_model(dataclasses.replace(make(), preprocessing=rules), tmp_path)
    assert load_checkpoint(find(str(tmp_path))).preprocessing == rules
    backend = {} if isinstance(resample, BilinearSampling) else {"backend": "pil"}
    processor = AutoImageProcessor.from_pretrained(tmp_path, **backend)
    module = EndToEnd(torch.nn.Identity(), torch.nn.Identity(), scale=rules.scale, mean=rules.mean, std=rules.std)
    for width, height in ((300, 200), (20, 500), (1, 1)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
        pixels = torch.from_numpy(resize_image(image, rules.resize, rules.resample).copy())
        theirs = processor(image, return_tensors="pt").pixel_values
        torch.testing.assert_close(module.normalize(pixels[None]), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "layers"), TIMM_RESNETS.items(), ids=lambda value: getattr(value, "__name__", str(value))
)
def test_timm_has_the_resnets_of_dc5_models(blocks: tuple[BlockKind, tuple[int, ...]], layers: int) -> None:
    block, depths = blocks
    with torch.device("meta"):
        ours = Detr(dataclasses.replace(SMALL_DETR, block=block, depths=depths, dilation=True)).backbone.state_dict()
        theirs = timm.create_model(f"resnet{layers}", num_classes=0).state_dict()
    shapes = {name: value.shape for name, value in theirs.items() if not name.endswith("num_batches_tracked")}
    assert {name: value.shape for name, value in ours.items()} == shapes


@pytest.mark.parametrize(
    "depths", [(1, 1, 1, 1), (4, 4, 4, 4), (3, 4, 6, 4)], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_dc5_model_with_another_resnet_is_refused(depths: tuple[int, ...], tmp_path: Path) -> None:
    network = Detr(dataclasses.replace(SMALL_DETR, depths=depths, dilation=True))
    with pytest.raises(ModelError, match=r"ResNet of \d, \d, \d, \d blocks cannot .* only those of 18, 34, 26, 50"):
        saved_as(network, ShortestEdge(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    network, rule = NETWORKS["nano"]
    model = saved_as(network, rule, tmp_path / "whole")
    save_model(model, tmp_path / "half", dtype=torch.float16)
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.55 * whole
    loaded = load_checkpoint(find(str(tmp_path / "half")))
    before, after = network.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before)
