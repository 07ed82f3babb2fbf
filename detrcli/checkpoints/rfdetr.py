"""RF-DETR's configuration and image size, from and to a checkpoint."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import ModelError
from ..images.resize import Exactly
from ..models.rfdetr import SIZES, RfDetrConfig
from ..models.vit import EPS
from .class_names import Numbering
from .config import SettingError, attention_heads, backbone_config, count_modules, require
from .find import Checkpoint
from .lwdetr import feature_blocks, read_detector, write_detector
from .preprocessing import MAX_SIDE

LAYER_NORM_EPS = 1e-5
"""Of the decoder, PyTorch's default."""
HEAD_WIDTH = 64
"""Channels per attention head in every DINOv2."""
ARGUMENTS = {
    "num_windows": "backbone_config.num_windows",
    "out_feature_indexes": "backbone_config.out_indices",
    "sa_nheads": "decoder_self_attention_heads",
    "ca_nheads": "decoder_cross_attention_heads",
}
"""Training arguments of the authors' package, and the settings in config.json that they correspond to."""


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> RfDetrConfig:
    """Derive the configuration from the tensors' shapes (by our names), and the rest from config.json.

    Without config.json, the arguments of the training run say the rest or, if they are not in the file either, the
    published size with the same patches and ViT. Missing and misshapen tensors, and values of other types, raise the
    errors that `Family.build` reports.

    Raises:
        SettingError: the files ask for something that is not supported.
        ModelError: they lack what an unpublished size needs.
    """
    config = _settings(checkpoint)
    nested = backbone_config(config)
    width, _, patch, _ = tensors["backbone.embedding.patches.weight"].shape
    depth = count_modules(tensors, r"backbone\.blocks\.(\d+)\.")
    require(
        "RF-DETR",
        ("activation_function", config.get("activation_function", "silu"), "silu"),
        ("decoder_activation_function", config.get("decoder_activation_function", "relu"), "relu"),
        ("layer_norm_eps", config.get("layer_norm_eps", LAYER_NORM_EPS), LAYER_NORM_EPS),
        ("backbone_config.hidden_act", nested.get("hidden_act", "gelu"), "gelu"),
        ("backbone_config.layer_norm_eps", nested.get("layer_norm_eps", EPS), EPS),
        ("backbone_config.patch_size", nested.get("patch_size", patch), patch),
        ("backbone_config.apply_layernorm", nested.get("apply_layernorm", True), True),
    )
    windows, outputs = nested.get("num_windows"), _outputs(nested)
    if windows is None or outputs is None:
        published = next((size for size in SIZES.values() if (size.patch, size.vit_depth) == (patch, depth)), None)
        if published is None:
            raise ModelError(
                f"{checkpoint.weights} needs a config.json: no published RF-DETR has patches of {patch} pixels "
                f"and a ViT of {depth} blocks"
            )
        windows = published.windows if windows is None else windows
        outputs = [block + 1 for block in published.features] if outputs is None else outputs
    if type(windows) is not int or windows < 1:
        raise SettingError("backbone_config.num_windows", windows, "it must be a positive whole number")
    features = feature_blocks(outputs, depth)
    within = nested.get("window_block_indexes")
    return RfDetrConfig(
        vit_dim=width,
        vit_heads=attention_heads(nested.get("num_attention_heads", width // HEAD_WIDTH), "num_attention_heads", width),
        vit_depth=depth,
        window_blocks=_window_blocks(features, depth) if within is None else tuple(sorted(within)),
        features=features,
        vit_positions=math.isqrt(tensors["backbone.embedding.positions.weight"].shape[1]),
        patch=patch,
        windows=windows,
        **read_detector(config, tensors),
    )


def _window_blocks(features: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the blocks that attend within windows: all but those after one whose output is used."""
    return tuple(block for block in range(min(max(features) + 2, depth)) if block - 1 not in features)


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return config.json or, without it, the training arguments in its terms."""
    if checkpoint.config is not None:
        return checkpoint.config
    settings: dict[str, Any] = {"backbone_config": {}}
    for argument, name in ARGUMENTS.items():
        value = (checkpoint.arguments or {}).get(argument)
        if value is not None:
            section = settings["backbone_config"] if name.startswith("backbone_config.") else settings
            section[name.rpartition(".")[2]] = value
    return settings


def _outputs(backbone: Mapping[str, Any]) -> list[int] | None:
    """Return the indices of the blocks whose outputs are used, where 0 is the stem, or None if they are not said."""
    if (indices := backbone.get("out_indices")) is not None:
        return list(indices)
    names = backbone.get("out_features")
    return None if names is None else [int(name.removeprefix("stage")) for name in names]


def write_config(config: RfDetrConfig) -> dict[str, Any]:
    """Return the contents of config.json, without the classes.

    `transformers` has no RF-DETR of several scales: it refuses the tensors of one, which only this package loads.
    """
    return {
        "model_type": "rf_detr",
        "architectures": ["RfDetrForObjectDetection"],
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            "hidden_size": config.vit_dim,
            "num_attention_heads": config.vit_heads,
            "num_hidden_layers": config.vit_depth,
            "out_indices": [block + 1 for block in config.features],
            "window_block_indexes": list(config.window_blocks),
            "patch_size": config.patch,
            "image_size": config.patch * config.vit_positions,
            "num_windows": config.windows,
        },
        "num_feature_levels": len(config.scales),
        **write_detector(config),
    }


def stride(config: RfDetrConfig) -> int:
    """Return the number that both sides of an image must be multiples of: all windows have the same whole patches."""
    return config.patch * config.windows


def resize(config: RfDetrConfig) -> Exactly:
    """Return the image size whose patches have the learned positions, or the next larger one that is possible."""
    side = math.ceil(config.patch * config.vit_positions / stride(config)) * stride(config)
    return Exactly(side, side)


def trained_size(checkpoint: Checkpoint) -> Exactly | None:
    """Return the image size among the training arguments, or None if there is none."""
    side = (checkpoint.arguments or {}).get("resolution")
    return Exactly(side, side) if type(side) is int and 0 < side <= MAX_SIDE else None


def numbering(checkpoint: Checkpoint) -> Numbering:
    """Return how the authors' package numbers the classes, whose head has a row more than there are.

    With datasets in COCO's format, versions before 1.6, whose training arguments include the matcher's, and later ones
    that are told so use the category ids, usually from 1 on. All others count from 0. Before 1.6, the default format,
    `roboflow`, could also be YOLO's.
    """
    arguments = checkpoint.arguments or {}
    before_1_6, dataset = "set_cost_class" in arguments, arguments.get("dataset_file")
    if dataset in ("coco", "o365") or (before_1_6 and dataset != "yolo"):
        return Numbering(first=1, known=False)
    return Numbering(first=0, known=True)
