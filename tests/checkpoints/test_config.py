"""Old and new forms of config.json and preprocessor_config.json."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from detrcli.checkpoints.class_names import checkpoint_class_names
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.detr import find_dilation, read_config
from detrcli.checkpoints.families import DETR, Family
from detrcli.checkpoints.find import Checkpoint
from detrcli.checkpoints.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, as_json, from_json
from detrcli.checkpoints.preprocessing import preprocessing as family_preprocessing
from detrcli.errors import ModelError
from detrcli.images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    Padded,
    PillowFilter,
    ResizeRule,
    ShortestEdge,
    Within,
)
from detrcli.models.detr import Detr, DetrConfig

from ..places import DATA


def preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    return family_preprocessing(checkpoint, Preprocessing())


SMALL = DetrConfig(
    7,
    num_queries=9,
    depths=(1, 2, 1, 3),
    hidden_dim=32,
    heads=4,
    feedforward=48,
    encoder_layers=2,
    decoder_layers=3,
)
OLD = {
    "model_type": "detr",
    "backbone": "resnet50",
    "use_timm_backbone": True,
    "dilation": False,
    "activation_function": "relu",
    "position_embedding_type": "sine",
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
}


def tensors_of(config: DetrConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return Detr(config).state_dict()


PAD: dict[str, Any] = {"pad_size": {"height": 512, "width": 640}}


def checkpoint(
    config: dict[str, Any] | None = None,
    preprocessor: dict[str, Any] | None = None,
    weights: str = "folder/model.safetensors",
) -> Checkpoint:
    return Checkpoint("my-model", Path(weights), config, preprocessor)


def published(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / f"{file}.config.json").read_text())
    return content


@pytest.mark.parametrize("kind", ["hf-backbone", "timm-backbone"])
def test_published_configs(kind: str) -> None:
    config = published(f"detr-resnet-50.{kind}")
    assert read_config(checkpoint(config), tensors_of(DetrConfig(91))) == DetrConfig(91)
    nested = config["backbone_config"] | {"output_stride": 16}
    dilated = read_config(checkpoint(config | {"backbone_config": nested}), tensors_of(DetrConfig(91)))
    assert dilated == DetrConfig(91, dilation=True)


def test_sizes_come_from_the_tensors() -> None:
    config = OLD | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.1, "num_queries": 100}
    assert read_config(checkpoint(config), tensors_of(SMALL)) == SMALL


@pytest.mark.parametrize("dilation", [False, True])
def test_old_config(dilation: bool) -> None:
    config = OLD | {"dilation": dilation, "backbone_config": None}
    assert read_config(checkpoint(config), tensors_of(DetrConfig(91))) == DetrConfig(91, dilation=dilation)


def test_heads_and_dropout() -> None:
    config = OLD | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.25}
    built = read_config(checkpoint(config), tensors_of(DetrConfig(3)))
    assert (built.heads, built.dropout) == (2, 0.25)
    del config["decoder_attention_heads"]
    assert read_config(checkpoint(config | {"encoder_attention_heads": 8}), tensors_of(DetrConfig(3))).heads == 8
    assert read_config(checkpoint(), tensors_of(DetrConfig(3))).heads == 8


@pytest.mark.parametrize(
    ("weights", "dilation"),
    [
        ("detr-r50-dc5-f0fb7ef5.pth", True),
        ("DETR-R101-DC5.pth", True),
        ("detr-resnet-50-dc5/model.safetensors", False),
        ("detr-r50-e632da11.pth", False),
        ("dc5/models/detr-r50.pth", False),
    ],
)
def test_dilation_by_the_name_of_a_lone_file(weights: str, dilation: bool) -> None:
    tensors = tensors_of(DetrConfig(91))
    assert read_config(checkpoint(weights=weights), tensors).dilation is dilation
    assert read_config(checkpoint(OLD, weights=weights), tensors).dilation is False


@pytest.mark.parametrize("dilation", [False, True])
@pytest.mark.parametrize("name", ["detr-r50-dc5.pth", "detr-r50.pth"])
def test_training_arguments_come_before_the_name(name: str, dilation: bool) -> None:
    trained = replace(checkpoint(weights=name), arguments={"dilation": dilation, "lr": 1e-4})
    assert read_config(trained, tensors_of(SMALL)).dilation is dilation
    assert find_dilation(trained)[1] == "the arguments of its training run"
    configured = replace(trained, config=OLD | {"dilation": not dilation})
    assert read_config(configured, tensors_of(SMALL)).dilation is not dilation
    assert find_dilation(configured)[1] == "config.json"
    silent = replace(trained, arguments={"lr": 1e-4})
    assert read_config(silent, tensors_of(SMALL)).dilation is ("dc5" in name)
    assert find_dilation(silent)[1] == "the file's name"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("activation_function = 'gelu'", {"activation_function": "gelu"}),
        ("position_embedding_type = 'learned'", {"position_embedding_type": "learned"}),
        ("decoder_attention_heads = 4", {"decoder_attention_heads": 4}),
        ("backbone_config.hidden_act = 'gelu'", {"backbone_config": {"hidden_act": "gelu"}}),
        (
            "backbone_config.downsample_in_bottleneck = True",
            {"backbone_config": {"downsample_in_bottleneck": True}},
        ),
        (
            "backbone_config.downsample_in_first_stage = True",
            {"backbone_config": {"downsample_in_first_stage": True}},
        ),
    ],
)
def test_other_variants_are_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"folder/config\.json says") as caught:
        DETR.build(checkpoint(OLD | config), tensors_of(SMALL))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"encoder_attention_heads": "many", "decoder_attention_heads": "many"},
        {"encoder_attention_heads": None, "decoder_attention_heads": None},
        {"encoder_attention_heads": 0, "decoder_attention_heads": 0},
        {"encoder_attention_heads": 5, "decoder_attention_heads": 5},
        {"dropout": "a bit"},
        {"dropout": [0.1]},
        {"backbone_config": "resnet50"},
    ],
    ids=lambda config: json.dumps(config),
)
def test_invalid_config(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"folder/config\.json says"):
        DETR.build(checkpoint(OLD | config), tensors_of(SMALL))


@pytest.mark.parametrize(
    "name", ["class_head.weight", "object_queries.weight", "encoder.layers.0.feedforward.0.weight"]
)
def test_missing_and_misshapen_tensors(name: str) -> None:
    tensors = tensors_of(SMALL)
    with pytest.raises(ModelError, match=r"folder/model\.safetensors"):
        DETR.build(checkpoint(OLD), tensors | {name: torch.zeros(())})
    del tensors[name]
    with pytest.raises(ModelError, match=r"folder/model\.safetensors is an incomplete DETR") as caught:
        DETR.build(checkpoint(OLD), tensors)
    assert name in str(caught.value)


def class_names(config: dict[str, Any] | None, count: int, family: Family[Any] = DETR) -> tuple[str, ...]:
    return checkpoint_class_names(checkpoint(config), count, family.datasets)


def test_own_class_names() -> None:
    names = ("balloon", "kite", "ufo", "bird", "plane", "superman", "cloud")
    config = OLD | {"id2label": {str(label): name for label, name in enumerate(names)}}
    assert class_names(config, 7) == names


def test_class_names_that_cannot_be_encoded() -> None:
    config = OLD | {"id2label": {"0": "half a fox \ud83d", "1": "ünï 🦊"}}
    assert class_names(config, 2) == ("half a fox ?", "ünï 🦊")


def test_class_names_with_gaps() -> None:
    config = OLD | {"id2label": {"0": "balloon", "2": 2, "9": "none of them"}}
    assert class_names(config, 3) == ("balloon", "class 1", "2")


@pytest.mark.parametrize("config", [None, OLD, OLD | {"id2label": None}, OLD | {"id2label": ["cat"]}])
def test_class_names_of_the_dataset(config: dict[str, Any] | None) -> None:
    assert class_names(config, 91) == COCO
    assert (COCO[1], COCO[17], COCO[90]) == ("person", "cat", "toothbrush")
    assert class_names(config, 2) == ("class 0", "class 1")


def test_without_a_preprocessor_the_papers_rule() -> None:
    rules = preprocessing(checkpoint(OLD))
    assert rules == Preprocessing()
    assert rules.resize == ShortestEdge(800, 1333)
    assert (rules.scale, rules.mean, rules.std) == (1 / 255, IMAGENET_MEAN, IMAGENET_STD)


def test_published_preprocessor() -> None:
    settings = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "DetrFeatureExtractor",
        "format": "coco_detection",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "max_size": 1333,
        "size": 800,
    }
    assert preprocessing(checkpoint(OLD, settings)) == Preprocessing()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, ShortestEdge(800, 1333)),
        ({"size": 480}, ShortestEdge(480, 1333)),
        ({"size": 480, "max_size": 640}, ShortestEdge(480, 640)),
        ({"size": {"shortest_edge": 480, "longest_edge": 640}}, ShortestEdge(480, 640)),
        ({"size": {"shortest_edge": 480}}, ShortestEdge(480, None)),
        ({"size": {"shortest_edge": 480}, "max_size": 640}, ShortestEdge(480, 640)),
        ({"size": {"height": 480, "width": 640}}, Exactly(640, 480)),
        ({"size": {"max_height": 480, "max_width": 640}}, Within(640, 480)),
        ({"size": [480, 640]}, Exactly(640, 480)),
        ({"size": 480.0, "max_size": 640}, ShortestEdge(480, 640)),
        ({"size": {"longest_edge": 640}}, Within(640, 640)),
        ({"size": {"max_height": 480, "max_width": 640}} | PAD, Padded(Within(640, 480), 640, 512)),
        ({"size": {"max_height": 480, "max_width": 640}, "do_pad": False} | PAD, Within(640, 480)),
        ({"size": {"max_height": 480, "max_width": 640}, "pad_and_return_pixel_mask": False} | PAD, Within(640, 480)),
        ({"size": {"max_height": 480, "max_width": 640}, "pad_size": None}, Within(640, 480)),
        ({"size": {"height": 512, "width": 640}} | PAD, Exactly(640, 512)),
        ({"size": 400, "max_size": 512} | PAD, Padded(ShortestEdge(400, 512), 640, 512)),
        ({"size": 480, "do_resize": False} | PAD, ShortestEdge(800, 1333)),
    ],
)
def test_sizes(settings: Mapping[str, Any], rule: ResizeRule) -> None:
    assert preprocessing(checkpoint(OLD, dict(settings))).resize == rule


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, ExactLongestEdge(800, 1000)),
        ({"size": 800, "max_size": 800}, ExactLongestEdge(800, 800)),
        ({"size": {"shortest_edge": 600, "longest_edge": 900}}, ExactLongestEdge(600, 900)),
        ({"size": {"longest_edge": 900}}, ExactLongestEdge(900, 900)),
        ({"size": {"shortest_edge": 600}}, ShortestEdge(600, None)),
        ({"size": {"height": 480, "width": 640}}, Exactly(640, 480)),
    ],
)
def test_sizes_of_a_family_with_an_exact_longest_edge(settings: Mapping[str, Any], rule: ResizeRule) -> None:
    usual = Preprocessing(ExactLongestEdge(800, 1000))
    rules = family_preprocessing(checkpoint(OLD, dict(settings)), usual)
    assert rules.resize == rule
    assert from_json(as_json(rules), Preprocessing()) == rules  # as in an ONNX file, which names no family


def test_processors_that_do_not_antialias() -> None:
    sampling, filtered = (
        {"image_processor_type": "RfDetrImageProcessor"},
        {"image_processor_type": "DetrImageProcessor"},
    )
    usual = Preprocessing(Exactly(384, 384), BilinearSampling())
    assert preprocessing(checkpoint(OLD, sampling)).resample == BilinearSampling()
    assert family_preprocessing(checkpoint(OLD), usual) == usual
    assert family_preprocessing(checkpoint(OLD, {"size": 480}), usual).resample == BilinearSampling()
    assert family_preprocessing(checkpoint(OLD, filtered), usual).resample == PILLOW_BILINEAR
    with pytest.raises(ModelError, match="bicubic is not supported without antialiasing"):
        preprocessing(checkpoint(OLD, {**sampling, "resample": 3}))
    assert from_json(as_json(usual), Preprocessing()) == usual


def test_values() -> None:
    settings = {"rescale_factor": 0.5, "image_mean": [1, 2, 3], "image_std": [4, 5, 6], "resample": 3}
    rules = preprocessing(checkpoint(OLD, settings))
    assert (rules.scale, rules.mean, rules.std) == (0.5, (1, 2, 3), (4, 5, 6))
    assert rules.resample == PillowFilter(Image.Resampling.BICUBIC)
    rules = preprocessing(checkpoint(OLD, settings | {"do_normalize": False, "do_rescale": False}))
    assert (rules.scale, rules.mean, rules.std) == (1, (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"size": "large"},
        {"size": None},
        {"size": True},
        {"size": 0},
        {"size": -800},
        {"size": 800.5},
        {"size": 800, "max_size": "large"},
        {"size": 800, "max_size": 0},
        {"size": {}},
        {"size": {"shortest_edge": "800"}},
        {"size": {"shortest_edge": 800, "longest_edge": "1333"}},
        {"size": {"shortest_edge": 0, "longest_edge": 1333}},
        {"size": {"height": 800}},
        {"size": {"height": 0, "width": 0}},
        {"size": [800]},
        {"size": {"longest_edge": 10**400}},
        {"size": {"max_height": 480, "max_width": 641}} | PAD,
        {"size": {"shortest_edge": 480}} | PAD,
        {"size": 800} | PAD,
        {"size": 400, "pad_size": 512},
        {"image_mean": [0.5, 0.5, float("nan")]},
        {"image_std": [0.5, 0.5, -0.5]},
        {"image_std": [0.5, 0.5, 10**400]},
        {"rescale_factor": float("inf")},
        {"rescale_factor": 0},
        {"rescale_factor": 10**400},
        {"resample": 10**400},
        {"resample": 99},
        {"resample": "bilinear"},
        {"rescale_factor": "1/255"},
        {"rescale_factor": None},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": 0.5},
        {"image_mean": ["a", "b", "c"]},
        {"image_std": None},
        {"image_std": [0, 0, 0]},
    ],
    ids=lambda settings: json.dumps(settings),
)
def test_invalid_preprocessor(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"preprocessor_config\.json") as caught:
        preprocessing(checkpoint(OLD, settings))
    assert "my-model" in str(caught.value)
