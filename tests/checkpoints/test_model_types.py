"""Unsupported models are named, however they were saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from detrcli.checkpoints.families import FAMILIES
from detrcli.checkpoints.load import load_model
from detrcli.checkpoints.model_types import ONLY_SUPPORTED, SUPPORTED, unsupported_model
from detrcli.errors import ModelError

from ..places import SHARED
from .test_layouts import CONFIGS, shapes

BACKBONE = {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": False}
LAYERS: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}
HYBRID: dict[str, Any] = {
    "encoder_in_channels": [16, 16, 16],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "decoder_in_channels": [32, 32, 32],
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}
"""Sizes of RT-DETR and its successors."""
RT_DETR = HYBRID | {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 16, 16, 16],
        "embedding_size": 8,
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    }
}
D_FINE = HYBRID | {
    "backbone_config": {
        "model_type": "hgnet_v2",
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 16, 16, 16],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 16],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 16, 16],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "out_features": ["stage2", "stage3", "stage4"],
    }
}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Conditional DETR": (transformers.ConditionalDetrForObjectDetection, BACKBONE | LAYERS),
    "Deformable DETR": (transformers.DeformableDetrForObjectDetection, BACKBONE | LAYERS | {"decoder_layers": 2}),
    "DAB-DETR": (transformers.DabDetrForObjectDetection, BACKBONE | LAYERS | {"hidden_size": 64}),
    "RT-DETR": (transformers.RTDetrForObjectDetection, RT_DETR),
    "RT-DETRv2": (transformers.RTDetrV2ForObjectDetection, RT_DETR),
    "D-FINE": (transformers.DFineForObjectDetection, D_FINE),
    "DEIM": (transformers.Deimv2ForObjectDetection, D_FINE),
    "panoptic": (transformers.DetrForSegmentation, BACKBONE | LAYERS),
    "instance segmentation": (
        transformers.RfDetrForInstanceSegmentation,
        {
            "backbone_config": {
                "model_type": "rf_detr_dinov2",
                "hidden_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "out_indices": [1],
            },
            **LAYERS,
            "decoder_self_attention_heads": 8,
            "decoder_cross_attention_heads": 8,
            "group_detr": 1,
        },
    ),
    "YOLOS": (
        transformers.YolosForObjectDetection,
        {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
    ),
}


def build(name: str) -> Any:
    kind, settings = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        return kind(kind.config_class(**settings))


def refused(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"; {ONLY_SUPPORTED}")
    return message


def test_each_family_is_supported() -> None:
    assert sorted(SUPPORTED.values()) == sorted(family.name for family in FAMILIES)
    assert ONLY_SUPPORTED == "only box detection with DETR, Table Transformer, LW-DETR and RF-DETR is supported"


@pytest.mark.parametrize("name", MODELS)
def test_folders_and_files_of_transformers(tmp_path: Path, name: str) -> None:
    model: nn.Module = build(name)
    model.save_pretrained(tmp_path / "folder")  # type: ignore[operator]
    assert name in refused(tmp_path / "folder")
    torch.save(model.state_dict(), tmp_path / "lone.pth")
    assert name in refused(tmp_path / "lone.pth")
    torch.save(
        {"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "l.ckpt"
    )
    assert name in refused(tmp_path / "l.ckpt")


@pytest.mark.parametrize(
    ("kind", "title"),
    [("grounding-dino", "Grounding DINO"), ("deta", "DETA"), ("pp_doclayout_v2", "PP-DocLayoutV2")],
)
def test_config_alone(tmp_path: Path, kind: str, title: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    assert f"of type {kind!r} ({title}" in refused(tmp_path)


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["detr.query_embed.weight", "mask_head.lay1.weight"], "DETR for panoptic segmentation"),
        (["refpoint_embed.weight", "segmentation_head.blocks.0.dwconv.weight"], "RF-DETR for instance segmentation"),
        (["refpoint_embed.weight", "keypoint_embed.layers.0.weight"], "RF-DETR for keypoints"),
        (
            ["refpoint_embed.weight", "backbone.0.encoder.base_model.model.embeddings.cls_token"],
            "RF-DETR with LoRA adapters",
        ),
        (["query_embed.weight", "transformer.encoder.layers.0.self_attn.sampling_offsets.bias"], "Deformable DETR"),
        (["query_embed.weight", "transformer.decoder.layers.0.ca_qcontent_proj.weight"], "Conditional DETR"),
        (["refpoint_embed.weight", "transformer.decoder.ref_anchor_head.layers.0.weight"], "DAB-DETR"),
        (["transformer.encoder.fusion_layers.0.attn.v_proj.weight"], "Grounding DINO"),
        (["decoder.denoising_class_embed.weight"], "RT-DETR"),
        (["decoder.denoising_class_embed.weight", "decoder.lqe_layers.0.reg_conf.layers.0.weight"], "D-FINE"),
        (
            ["decoder.denoising_class_embed.weight", "decoder.decoder.layers.0.cross_attn.num_points_scale"],
            "RT-DETRv2",
        ),
        (["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"], "YOLO"),
    ],
)
def test_files_of_the_authors(tmp_path: Path, names: list[str], title: str) -> None:
    for prefix in ("", "module."):
        torch.save({"model": {prefix + name: torch.zeros(1) for name in names}}, tmp_path / "weights.pth")
        assert title in refused(tmp_path / "weights.pth")


@pytest.mark.parametrize("file", CONFIGS)
def test_supported_models_are_not_mistaken_for_others(file: str) -> None:
    assert unsupported_model(shapes(file)) is None


GOLDEN = sorted((SHARED / "golden").rglob("*.keys.json"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.name)
def test_published_names(file: Path) -> None:
    assert unsupported_model(json.loads(file.read_text())) is None
