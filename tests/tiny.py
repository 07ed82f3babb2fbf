"""A whole DETR in the Hub's layout that is small enough for every test: one block or layer of each kind."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detrcli.checkpoints.load import LoadedModel
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.checkpoints.save import DETR_NAMES, RESNET_NAMES, renamed, save_model
from detrcli.images.resize import ShortestEdge
from detrcli.models.detr import Detr, DetrConfig

QUERIES = 5


def in_hub_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DETR's tensors by the names that transformers gives them, its own ResNet included."""
    return renamed(tensors, RESNET_NAMES + DETR_NAMES)


def tiny_network(*, num_classes: int = 7, seed: int = 0) -> Detr:
    """A network whose answers differ from image to image, query to query and seed to seed."""
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
    network = tiny_network(num_classes=num_classes, seed=seed)
    names = tuple(f"thing {label}" for label in range(num_classes))
    save_model(LoadedModel("tiny", network, names, Preprocessing(ShortestEdge(64, 96))), folder)
