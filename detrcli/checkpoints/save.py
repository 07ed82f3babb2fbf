"""From a network to a folder in the Hub's layout, which this package and `transformers` load."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import ModelError
from ..files import atomic_file
from ..models.detr import DetrConfig
from ..models.lwdetr import LwDetrConfig
from ..models.resnet import BLOCKS, WIDTHS, BlockKind
from ..models.vit import PATCH, WINDOWS
from .load import LoadedModel
from .preprocessing import as_json

RESNET_NAMES = (
    (r"^backbone\.conv1\.", "backbone.embedder.embedder.convolution."),
    (r"^backbone\.bn1\.", "backbone.embedder.embedder.normalization."),
    *((rf"^backbone\.layer{stage + 1}\.", f"backbone.encoder.stages.{stage}.layers.") for stage in range(4)),
    *((rf"(layers\.\d+)\.conv{place + 1}\.", rf"\1.layer.{place}.convolution.") for place in range(3)),
    *((rf"(layers\.\d+)\.bn{place + 1}\.", rf"\1.layer.{place}.normalization.") for place in range(3)),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
)
DETR_NAMES = (
    (r"^backbone\.", "model.backbone.conv_encoder.model."),
    (r"^(input_projection|encoder|decoder)\.", r"model.\1."),
    (r"^object_queries\.", "model.query_position_embeddings."),
    (r"^class_head\.", "class_labels_classifier."),
    (r"^box_head\.", "bbox_predictor."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.cross_attention\.", ".encoder_attn."),
    (r"\.(q)uery\.|\.(k)ey\.|\.(v)alue\.", r".\1\2\3_proj."),
    (r"_attn\.output\.", "_attn.out_proj."),
    (r"(layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"decoder\.norm\.", "decoder.layernorm."),
    (r"\.feedforward\.0\.", ".fc1."),
    (r"\.feedforward\.3\.", ".fc2."),
)
"""Pattern → replacement, applied in order, all of them, to each of our names; timm's ResNet has the names we have."""

LWDETR_NAMES = (
    (r"^reference_deltas\.", "model.reference_point_embed."),
    (r"^object_queries\.", "model.query_feat."),
    (r"^class_head\.", "class_embed."),
    (r"^box_head\.", "bbox_embed."),
    (r"^proposals\.(\d+)\.embed\.", r"model.enc_output.\1."),
    (r"^proposals\.(\d+)\.norm\.", r"model.enc_output_norm.\1."),
    (r"^proposals\.(\d+)\.class_head\.", r"model.enc_out_class_embed.\1."),
    (r"^proposals\.(\d+)\.box_head\.", r"model.enc_out_bbox_embed.\1."),
    (r"^backbone\.embedding\.positions\.weight$", "backbone.embeddings.position_embeddings"),
    (r"^backbone\.embedding\.patches\.", "backbone.embeddings.projection."),
    (r"^(backbone\.blocks\.\d+\.attention)\.(query|key|value)\.", r"\1.attention.\2."),
    (r"^(backbone\.blocks.*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(backbone\.blocks.*)\.norm2\.", r"\1.layernorm_after."),
    (r"^(backbone\.blocks.*)\.feedforward\.0\.", r"\1.intermediate.fc1."),
    (r"^(backbone\.blocks.*)\.feedforward\.2\.", r"\1.intermediate.fc2."),
    (r"\.scale([12])\.weight$", r".gamma_\1"),
    (r"^backbone\.blocks\.", "backbone.encoder.layer."),
    (r"^backbone\.", "model.backbone.backbone."),
    (r"^projector\.stages\.", "model.backbone.projector.scale_layers."),
    (r"(scale_layers\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"(scale_layers\.\d+)\.resamplers\.(\d+)\.", r"\1.sampling_layers.\2.layers."),
    (r"(scale_layers.*)\.c2f\.split\.", r"\1.projector_layer.conv1."),
    (r"(scale_layers.*)\.c2f\.join\.", r"\1.projector_layer.conv2."),
    (r"(scale_layers.*)\.c2f\.bottlenecks\.(\d+)\.0\.", r"\1.projector_layer.bottlenecks.\2.conv1."),
    (r"(scale_layers.*)\.c2f\.bottlenecks\.(\d+)\.1\.", r"\1.projector_layer.bottlenecks.\2.conv2."),
    # a convolution with its batch norm: the pair's own numbers come last
    (r"(scale_layers.*\.conv[12])\.0\.", r"\1.conv."),
    (r"(scale_layers.*\.conv[12])\.1\.", r"\1.norm."),
    (r"(sampling_layers\.\d+\.layers\.\d+)\.0\.", r"\1.conv."),
    (r"(sampling_layers\.\d+\.layers\.\d+)\.1\.", r"\1.norm."),
    (r"^decoder\.", "model.decoder."),
    (r"^(model\.decoder)\.norm\.", r"\1.layernorm."),
    (r"\.position_head\.", ".ref_point_head."),
    (r"(decoder.*)\.self_attention\.(q)uery\.", r"\1.self_attn.\2_proj."),
    (r"(decoder.*)\.self_attention\.(k)ey\.", r"\1.self_attn.\2_proj."),
    (r"(decoder.*)\.self_attention\.(v)alue\.", r"\1.self_attn.\2_proj."),
    (r"(decoder.*)\.self_attention\.output\.", r"\1.self_attn.o_proj."),
    (r"\.cross_attention\.offsets\.", ".cross_attn.sampling_offsets."),
    (r"\.cross_attention\.weights\.", ".cross_attn.attention_weights."),
    (r"\.cross_attention\.value\.", ".cross_attn.value_proj."),
    (r"\.cross_attention\.output\.", ".cross_attn.output_proj."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.cross_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.layer_norm."),
    (r"(decoder.*)\.feedforward\.0\.", r"\1.mlp.fc1."),
    (r"(decoder.*)\.feedforward\.3\.", r"\1.mlp.fc2."),
)  # fmt: skip
"""The same for LW-DETR."""

TIMM_RESNETS: dict[tuple[BlockKind, tuple[int, ...]], int] = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (2, 2, 2, 2)): 26,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
    ("bottleneck", (3, 24, 36, 3)): 200,
}
"""Kind of the blocks, and how many each stage has → layers, as timm has it in the name."""


def save_model(model: LoadedModel, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a model as the Hub has it: config.json, preprocessor_config.json, and at last model.safetensors.

    Args:
        model: its network must be in its trained form.
        folder: made if it is missing.
        dtype: what floating-point weights are stored in.

    Raises:
        ModelError: see `detr_as_json`.
        OutputError: the files cannot be written.
    """
    config = model.network.config
    detr = isinstance(config, DetrConfig)
    described = detr_as_json(config) if isinstance(config, DetrConfig) else lwdetr_as_json(config)
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in renamed(model.network.state_dict(), _names(config)).items()
    }
    labels = {"id2label": dict(enumerate(model.class_names)), "label2id": _indices(model.class_names)}
    preprocessor = {
        "image_processor_type": "DetrImageProcessor" if detr else "DeformableDetrImageProcessor",
        "do_pad": detr,
        **as_json(model.preprocessing),
        "format": "coco_detection",
    }
    _write_json(folder / "config.json", described | labels | {"dtype": str(dtype).removeprefix("torch.")})
    _write_json(folder / "preprocessor_config.json", preprocessor)
    with atomic_file(folder / "model.safetensors") as file:
        file.write(save(tensors, metadata={"format": "pt"}))


def _names(config: DetrConfig | LwDetrConfig) -> tuple[tuple[str, str], ...]:
    if isinstance(config, LwDetrConfig):
        return LWDETR_NAMES
    return DETR_NAMES if config.dilation else RESNET_NAMES + DETR_NAMES


def renamed(tensors: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Our tensors by the names that a table gives them."""
    theirs = {}
    for name, tensor in tensors.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs


def detr_as_json(config: DetrConfig) -> dict[str, Any]:
    """The config.json of a DETR, without its classes.

    Its backbone is `transformers`' own, or timm's for DC5, which the former does not know.

    Raises:
        ModelError: it is a DC5 model whose ResNet timm does not know either.
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
                f"a DC5 model with a ResNet of {blocks} blocks cannot be saved, for timm has none; "
                f"take one of {known} layers"
            )
        backbone = {"backbone": f"resnet{layers}", "use_timm_backbone": True, "dilation": True}
    return backbone | {
        "model_type": "detr",
        "architectures": ["DetrForObjectDetection"],
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


def lwdetr_as_json(config: LwDetrConfig) -> dict[str, Any]:
    """The config.json of an LW-DETR, without its classes."""
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


def _indices(names: tuple[str, ...]) -> dict[str, int]:
    return {name: label for label, name in enumerate(names)}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
