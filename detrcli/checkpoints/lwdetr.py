"""LW-DETR's configuration, from and to a checkpoint."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import ModelError
from ..models.lwdetr import SIZES, LwDetrConfig
from ..models.vit import EPS, PATCH, WINDOWS
from .config import SettingError, attention_heads, backbone_config, count_modules, require
from .find import Checkpoint

BATCH_NORM_EPS = 1e-5
"""PyTorch's default."""


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> LwDetrConfig:
    """Derive the configuration from the tensors' shapes (by our names), and the rest from config.json.

    Without config.json, the number of heads follows the paper's rule, and windows and feature levels are those of the
    published size with as many ViT blocks. Missing and misshapen tensors, and values of other types, raise the errors
    that `Family.build` reports.

    Raises:
        SettingError: config.json asks for something that is not supported.
        ModelError: it is missing for an unpublished size.
    """
    config = checkpoint.config or {}
    nested = backbone_config(config)
    require(
        "LW-DETR",
        ("activation_function", config.get("activation_function", "silu"), "silu"),
        ("decoder_activation_function", config.get("decoder_activation_function", "relu"), "relu"),
        ("batch_norm_eps", config.get("batch_norm_eps", BATCH_NORM_EPS), BATCH_NORM_EPS),
        ("backbone_config.hidden_act", nested.get("hidden_act", "gelu"), "gelu"),
        ("backbone_config.layer_norm_eps", nested.get("layer_norm_eps", EPS), EPS),
        ("backbone_config.num_windows", nested.get("num_windows", WINDOWS**2), WINDOWS**2),
        ("backbone_config.patch_size", nested.get("patch_size", PATCH), PATCH),
        ("backbone_config.qkv_bias", nested.get("qkv_bias", True), True),
    )
    depth = count_modules(tensors, r"backbone\.blocks\.(\d+)\.")
    windows, outputs = nested.get("window_block_indices"), nested.get("out_indices")
    width = tensors["backbone.embedding.patches.weight"].shape[0]
    published = min(SIZES.values(), key=lambda size: (size.vit_depth != depth, size.vit_dim != width))
    if published.vit_depth != depth and (windows is None or outputs is None):
        raise ModelError(f"{checkpoint.weights} needs a config.json: no published LW-DETR has a ViT of {depth} blocks")
    return LwDetrConfig(
        vit_dim=width,
        vit_heads=attention_heads(nested.get("num_attention_heads", published.vit_heads), "num_attention_heads", width),
        vit_depth=depth,
        window_blocks=published.window_blocks if windows is None else tuple(windows),
        features=published.features if outputs is None else feature_blocks(outputs, depth),
        vit_positions=math.isqrt(tensors["backbone.embedding.positions.weight"].shape[1]),
        **read_detector(config, tensors),
    )


def read_detector(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Derive the fields of a configuration outside of the ViT, which LW-DETR and RF-DETR share.

    Args:
        config: contents of config.json.
        tensors: by our names.

    Raises:
        SettingError: config.json says something impossible.
    """
    classes, hidden = tensors["class_head.weight"].shape
    stages = range(count_modules(tensors, r"projector\.stages\.(\d+)\."))
    groups = count_modules(tensors, r"proposals\.(\d+)\.")
    self_heads, cross_heads = (
        attention_heads(config.get(name, hidden // head_width), name, hidden)
        for name, head_width in (("decoder_self_attention_heads", 32), ("decoder_cross_attention_heads", 16))
    )
    locations = tensors["decoder.layers.0.cross_attention.weights.weight"].shape[0]
    return {
        "num_classes": classes,
        "scales": tuple(_scale(tensors, stage) for stage in stages),
        "c2f_depth": count_modules(tensors, r"projector\.stages\.0\.c2f\.bottlenecks\.(\d+)\."),
        "reduce_before_upsampling": any(_reduces(tensors, stage) for stage in stages),
        "hidden_dim": hidden,
        "num_queries": tensors["object_queries.weight"].shape[0] // groups,
        "num_groups": groups,
        "decoder_layers": count_modules(tensors, r"decoder\.layers\.(\d+)\."),
        "self_heads": self_heads,
        "cross_heads": cross_heads,
        "points": locations // (cross_heads * len(stages)),
        "feedforward": tensors["decoder.layers.0.feedforward.0.weight"].shape[0],
    }


def _scale(tensors: Mapping[str, Tensor], stage: int) -> float:
    """Scale of a projector stage: a 2×2 kernel upsamples, a 3×3 kernel downsamples."""
    kernels = {
        tensor.shape[2]
        for name, tensor in tensors.items()
        if name.startswith(f"projector.stages.{stage}.resamplers.0.") and tensor.dim() == 4
    }
    if 2 in kernels:
        return 2
    return 0.5 if 3 in kernels else 1


def _reduces(tensors: Mapping[str, Tensor], stage: int) -> bool:
    """Tell whether another convolution precedes a projector stage's transposed one."""
    return f"projector.stages.{stage}.resamplers.0.1.weight" in tensors


def feature_blocks(outputs: Sequence[int], depth: int) -> tuple[int, ...]:
    """Convert config.json's indices, where 0 is the stem and -1 the last block, to block numbers from 0.

    Raises:
        SettingError: there is no such block.
    """
    blocks = tuple(number % (depth + 1) - 1 for number in outputs)
    if -1 in blocks or not all(-depth <= number <= depth for number in outputs):
        raise SettingError("backbone_config.out_indices", outputs, f"the ViT has blocks 1 to {depth}")
    return blocks


def write_config(config: LwDetrConfig) -> dict[str, Any]:
    """Return the contents of config.json, without the classes."""
    return {
        "model_type": "lw_detr",
        "architectures": ["LwDetrForObjectDetection"],
        "backbone_config": {
            "model_type": "lw_detr_vit",
            "hidden_size": config.vit_dim,
            "num_attention_heads": config.vit_heads,
            "num_hidden_layers": config.vit_depth,
            "window_block_indices": list(config.window_blocks),
            "out_indices": [block + 1 for block in config.features],
            "patch_size": PATCH,
            "pretrain_image_size": PATCH * config.vit_positions,
            "num_windows": WINDOWS**2,
        },
        **write_detector(config),
    }


def write_detector(config: LwDetrConfig) -> dict[str, Any]:
    """Return what config.json says beside the ViT and the classes, for LW-DETR and RF-DETR."""
    return {
        "projector_scale_factors": [float(scale) for scale in config.scales],
        "c2f_num_blocks": config.c2f_depth,
        "d_model": config.hidden_dim,
        "num_queries": config.num_queries,
        "group_detr": config.num_groups,
        "decoder_layers": config.decoder_layers,
        "decoder_self_attention_heads": config.self_heads,
        "decoder_cross_attention_heads": config.cross_heads,
        "decoder_n_points": config.points,
        "decoder_ffn_dim": config.feedforward,
    }
