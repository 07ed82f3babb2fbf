"""DETR's configuration, from and to a checkpoint."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from ..errors import BackboneError, ModelError
from ..models.detr import DetrConfig
from ..models.resnet import BLOCKS, WIDTHS, BlockKind
from .config import SettingError, attention_heads, backbone_config, count_modules, require
from .find import Checkpoint
from .layouts import DETR_HUB, DETR_HUB_TIMM, Layout

Config = TypeVar("Config", bound=DetrConfig)
_RESNETS = r"(?:microsoft/)?resnet-?(?:18|26|34|50|101|152|200)(?:\.\w+)?"
"""Backbones that config.json may name."""

TIMM_RESNETS: dict[tuple[BlockKind, tuple[int, ...]], int] = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (2, 2, 2, 2)): 26,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
    ("bottleneck", (3, 24, 36, 3)): 200,
}
"""Kind of block and blocks per stage → number of layers in timm's name."""


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> DetrConfig:
    """Derive the configuration of a DETR; see `read_config_of`."""
    return read_config_of(DetrConfig, "DETR", checkpoint, tensors)


def read_config_of(kind: type[Config], family: str, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Config:
    """Derive the configuration from the tensors' shapes, and the rest from config.json.

    Missing and misshapen tensors raise KeyError, ValueError or IndexError, which `Family.build` reports.

    Args:
        kind: class of the configuration.
        family: name of the model family.
        checkpoint: the model's files.
        tensors: its tensors, by our names.

    Raises:
        SettingError: config.json asks for something that is not supported.
    """
    config = checkpoint.config or {}
    nested = backbone_config(config)
    _check_backbone(family, checkpoint, tensors)
    heads, dropout = config.get("encoder_attention_heads", 8), config.get("dropout", 0.1)
    require(
        family,
        ("activation_function", config.get("activation_function", "relu"), "relu"),
        ("position_embedding_type", config.get("position_embedding_type", "sine"), "sine"),
        ("decoder_attention_heads", config.get("decoder_attention_heads", heads), heads),
        ("backbone_config.hidden_act", nested.get("hidden_act", "relu"), "relu"),
        ("backbone_config.downsample_in_first_stage", nested.get("downsample_in_first_stage", False), False),
        ("backbone_config.downsample_in_bottleneck", nested.get("downsample_in_bottleneck", False), False),
    )
    if not isinstance(dropout, int | float):
        raise SettingError("dropout", dropout, "it must be a number")
    classes, hidden = tensors["class_head.weight"].shape
    return kind(
        num_classes=classes - 1,
        num_queries=tensors["object_queries.weight"].shape[0],
        depths=tuple(count_modules(tensors, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
        block="bottleneck" if "backbone.layer1.0.conv3.weight" in tensors else "basic",
        dilation=find_dilation(checkpoint)[0],
        hidden_dim=hidden,
        heads=attention_heads(heads, "encoder_attention_heads", hidden),
        feedforward=tensors["encoder.layers.0.feedforward.0.weight"].shape[0],
        encoder_layers=count_modules(tensors, r"encoder\.layers\.(\d+)\."),
        decoder_layers=count_modules(tensors, r"decoder\.layers\.(\d+)\."),
        dropout=dropout,
        norm="pre" if "encoder.norm.weight" in tensors else "post",
    )


def _check_backbone(family: str, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Refuse any backbone but a plain ResNet, as named in config.json or seen from the first layer's tensors."""
    config = checkpoint.config or {}
    nested = backbone_config(config)
    name = nested.get("backbone") or config.get("backbone")
    if name is None and nested.get("model_type", "resnet") not in ("resnet", "timm_backbone"):
        name = nested["model_type"]
    if name is None and any(key.startswith("backbone.conv1.0.") for key in tensors):
        name = "a ResNet whose stem has three convolutions, such as timm's resnet50d"
    if name is not None and not re.fullmatch(_RESNETS, str(name)):
        raise BackboneError(
            f"the backbone of {checkpoint.weights} is {name}; {family} is supported with a plain ResNet only"
        )


def find_dilation(checkpoint: Checkpoint) -> tuple[bool, str]:
    """Decide whether the backbone is dilated (DC5), which no tensor tells, and name the source.

    The source is config.json, else the arguments of the training run, else the file's name.
    """
    if checkpoint.config is not None:
        nested = backbone_config(checkpoint.config)
        return bool(checkpoint.config.get("dilation")) or nested.get("output_stride") == 16, "config.json"
    if checkpoint.arguments is not None and "dilation" in checkpoint.arguments:
        return bool(checkpoint.arguments["dilation"]), "the arguments of its training run"
    return "dc5" in checkpoint.weights.name.lower(), "the file's name"


def notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say whether the backbone is dilated, and according to what."""
    dilated, source = find_dilation(checkpoint)
    return (f"the backbone is {'dilated (DC5)' if dilated else 'not dilated (no DC5)'}, according to {source}",)


def hub_layout(config: DetrConfig) -> Layout:
    """Return the layout to save in: with transformers' own ResNet, or timm's if it is dilated."""
    return DETR_HUB_TIMM if config.dilation else DETR_HUB


def write_config(config: DetrConfig) -> dict[str, Any]:
    """Return the contents of config.json, without the classes; see `write_config_of`.

    Raises:
        ModelError: transformers has no such network.
    """
    if config.norm == "pre":
        raise ModelError("a DETR with pre-norm cannot be saved: transformers' DETR has post-norm only")
    return write_config_of(config, "detr", "DetrForObjectDetection")


def write_config_of(config: DetrConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """Return the contents of config.json, without the classes.

    Args:
        config: the network's configuration.
        model_type: of the family in transformers.
        architecture: name of its class in transformers.

    Raises:
        ModelError: transformers has no such backbone: it takes dilated ones from timm, in the published depths only.
    """
    backbone: dict[str, Any] = {
        "backbone_config": {
            "model_type": "resnet",
            "depths": list(config.depths),
            "hidden_sizes": [BLOCKS[config.block].expansion * width for width in WIDTHS],
            "layer_type": config.block,
            "out_features": ["stage4"],
        },
        "use_timm_backbone": False,
    }
    if config.dilation:
        layers = TIMM_RESNETS.get((config.block, config.depths))
        if layers is None:
            blocks, known = (", ".join(map(str, numbers)) for numbers in (config.depths, TIMM_RESNETS.values()))
            raise ModelError(
                f"a DC5 model with a ResNet of {blocks} blocks cannot be saved: timm has no such backbone, "
                f"only those of {known} layers"
            )
        backbone = {"backbone": f"resnet{layers}", "use_timm_backbone": True, "dilation": True}
    return backbone | {
        "model_type": model_type,
        "architectures": [architecture],
        "use_pretrained_backbone": False,
        "d_model": config.hidden_dim,
        "num_queries": config.num_queries,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.feedforward,
        "decoder_ffn_dim": config.feedforward,
        "dropout": config.dropout,
    }
