"""A whole DETR in the Hub's layout that is small enough for every test: one block or layer of each kind."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detrcli.models.detr import Detr, DetrConfig

QUERIES = 5

TO_HUB = (
    (r"^backbone\.conv1\.", "backbone.embedder.embedder.convolution."),
    (r"^backbone\.bn1\.", "backbone.embedder.embedder.normalization."),
    *((rf"^backbone\.layer{stage + 1}\.", f"backbone.encoder.stages.{stage}.layers.") for stage in range(4)),
    *((rf"(layers\.\d+)\.conv{place + 1}\.", rf"\1.layer.{place}.convolution.") for place in range(3)),
    *((rf"(layers\.\d+)\.bn{place + 1}\.", rf"\1.layer.{place}.normalization.") for place in range(3)),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
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


def in_hub_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by the names that transformers gives them, its own ResNet included."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in TO_HUB:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def tiny_network(*, num_classes: int = 7, seed: int = 0) -> Detr:
    """A network whose answers differ from picture to picture, query to query and seed to seed."""
    config = DetrConfig(
        num_classes,
        num_queries=QUERIES,
        depths=(1, 1, 1, 1),
        hidden_dim=32,
        feedforward=32,
        encoder_layers=1,
        decoder_layers=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detr(config).eval()
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if name.endswith((".query", ".key", ".value", ".output")):
                assert isinstance(module, nn.Linear)
                nn.init.xavier_normal_(module.weight, gain=2)
        for name, buffer in network.named_buffers():
            if name.endswith(("bias", "running_mean")):
                buffer.normal_(std=0.1)
            elif name.endswith(("weight", "running_var")):
                buffer.uniform_(0.9, 1.1)
        with torch.no_grad():
            network.object_queries.weight.mul_(2)
            network.class_head.weight.mul_(5)
            for parameter in network.box_head.parameters():
                parameter.mul_(3)
    return network


def save_tiny(folder: Path, *, num_classes: int = 7, seed: int = 0) -> None:
    """Write model.safetensors, config.json and preprocessor_config.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny_network(num_classes=num_classes, seed=seed)
    save_file(in_hub_layout(network.state_dict()), folder / "model.safetensors", {"format": "pt"})
    config = network.config
    description = {
        "architectures": ["DetrForObjectDetection"],
        "model_type": "detr",
        "activation_function": "relu",
        "position_embedding_type": "sine",
        "d_model": config.hidden_dim,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.feedforward,
        "decoder_ffn_dim": config.feedforward,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "num_queries": config.num_queries,
        "dropout": config.dropout,
        "dilation": False,
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone_config": {
            "model_type": "resnet",
            "depths": list(config.depths),
            "embedding_size": 64,
            "hidden_sizes": [256, 512, 1024, 2048],
            "layer_type": "bottleneck",
            "out_features": ["stage4"],
        },
        "id2label": {str(label): f"thing {label}" for label in range(num_classes)},
        "label2id": {f"thing {label}": label for label in range(num_classes)},
    }
    preprocessor = {
        "image_processor_type": "DetrImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 64, "longest_edge": 96},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
