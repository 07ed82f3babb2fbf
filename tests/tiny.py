"""A complete DETR, small enough for every test: one block or layer of each kind."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detrcli.checkpoints.layouts import DETR_HUB
from detrcli.checkpoints.load import LoadedModel
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.checkpoints.save import save_model
from detrcli.images.resize import ShortestEdge
from detrcli.models.detr import Detr, DetrConfig

QUERIES = 5


def in_hub_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a DETR as transformers does, with its own ResNet."""
    return DETR_HUB.to_published(tensors)


def tiny_network(*, num_classes: int = 7, seed: int = 0, kind: Callable[..., DetrConfig] = DetrConfig) -> Detr:
    """Make a network whose predictions differ between images, queries and seeds."""
    config = kind(
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
    """Save it in a folder in the Hub's layout."""
    network = tiny_network(num_classes=num_classes, seed=seed)
    names = tuple(f"thing {label}" for label in range(num_classes))
    save_model(LoadedModel("tiny", network, names, Preprocessing(ShortestEdge(64, 96))), folder)
