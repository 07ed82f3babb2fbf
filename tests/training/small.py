"""Small datasets of rendered scenes, and networks small enough to learn them in a test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from detrcli.checkpoints.load import LoadedModel
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.datasets import Dataset, read_dataset
from detrcli.images.resize import BilinearSampling, ExactLongestEdge, Exactly, ShortestEdge
from detrcli.models.detr import Detr, DetrConfig
from detrcli.models.lwdetr import SIZES, LwDetr
from detrcli.models.rfdetr import RfDetr, RfDetrConfig
from detrcli.models.table_transformer import TableTransformerConfig
from detrcli.training.augment import Augmentation
from detrcli.training.config import TrainConfig
from detrcli.training.initialize import initialize
from detrcli.training.optimizer import OptimizerConfig

from .. import scenes

PLAIN = Augmentation(random_crop=False, color_jitter=False)
CONFIG = TrainConfig(
    epochs=2,
    batch_size=2,
    lr=1e-3,
    optimizer=OptimizerConfig(),
    warmup_steps=5,
    augmentation=PLAIN,
    multi_scale=False,
    ema_decay=0.9,
)

DECODER: dict[str, Any] = {
    "c2f_depth": 1,
    "hidden_dim": 64,
    "self_heads": 2,
    "cross_heads": 4,
    "feedforward": 128,
    "num_queries": 20,
    "num_groups": 3,
}
"""Sizes of projector and decoder of a small LW-DETR or RF-DETR."""


def few_scenes(folder: Path, count: int = 4) -> Dataset:
    """Render some scenes."""
    scenes.write(folder, count, seed=3)
    return read_dataset(folder, "train")


def small_lwdetr(classes: tuple[str, ...] = scenes.CLASSES, **changes: Any) -> LoadedModel:
    """Return an LW-DETR with random weights."""
    import torch

    torch.manual_seed(0)
    config = replace(
        SIZES["nano"],
        num_classes=len(classes),
        vit_dim=64,
        vit_heads=2,
        vit_depth=2,
        window_blocks=(0,),
        features=(0, 1),
        **DECODER,
    )
    network = LwDetr(replace(config, **changes))
    initialize(network)
    return LoadedModel("small", network, classes, Preprocessing(Exactly(128, 128)))


def small_rfdetr(classes: tuple[str, ...] = scenes.CLASSES, **changes: Any) -> LoadedModel:
    """Return an RF-DETR with random weights."""
    import torch

    torch.manual_seed(0)
    config = RfDetrConfig(
        num_classes=len(classes),
        vit_dim=64,
        vit_heads=2,
        vit_depth=3,
        window_blocks=(0, 2),
        features=(0, 2),
        vit_positions=8,
        **DECODER,
    )
    network = RfDetr(replace(config, **changes))
    initialize(network)
    return LoadedModel("small", network, classes, Preprocessing(Exactly(128, 128), BilinearSampling()))


def small_detr(classes: tuple[str, ...] = scenes.CLASSES, kind: type[DetrConfig] = DetrConfig) -> LoadedModel:
    """Return a DETR with random weights."""
    import torch

    torch.manual_seed(0)
    config = kind(
        len(classes),
        num_queries=12,
        depths=(1, 1, 1, 1),
        block="basic",
        hidden_dim=32,
        heads=2,
        feedforward=64,
        encoder_layers=1,
        decoder_layers=2,
    )
    network = Detr(config)
    initialize(network)
    return LoadedModel("small", network, classes, Preprocessing(ShortestEdge(96, 128)))


def small_table_transformer(classes: tuple[str, ...] = scenes.CLASSES) -> LoadedModel:
    """Return a Table Transformer with random weights."""
    return replace(small_detr(classes, TableTransformerConfig), preprocessing=Preprocessing(ExactLongestEdge(128, 128)))
