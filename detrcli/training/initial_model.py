"""Initial models: pretrained, or an architecture with random weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..checkpoints.families import family_of
from ..checkpoints.find import find
from ..checkpoints.load import LoadedModel, load_checkpoint
from ..checkpoints.preprocessing import Preprocessing
from ..classes import matching_labels
from ..errors import ModelError
from ..images.resize import Exactly, ResizeRule, Size
from ..models import rfdetr
from ..models.detr import DetrConfig
from ..models.lwdetr import SIZES, LwDetrConfig
from ..models.table_transformer import DETECTION, STRUCTURE
from .initialize import initialize, with_classes
from .optimizer import freeze_stem


@dataclass(frozen=True)
class Architecture:
    """Network that can be trained from random weights.

    Attributes:
        config: sizes; the number of classes is replaced by that of the dataset.
        resize: default resize rule.
    """

    config: DetrConfig | LwDetrConfig
    resize: ResizeRule


_R101 = (3, 4, 23, 3)
_CONFIGS: dict[str, DetrConfig | LwDetrConfig] = {
    **{f"lwdetr-{name}": config for name, config in SIZES.items()},
    **{f"rfdetr-{name}": config for name, config in rfdetr.SIZES.items()},
    "detr-resnet-50": DetrConfig(91),
    "detr-resnet-50-dc5": DetrConfig(91, dilation=True),
    "detr-resnet-101": DetrConfig(91, depths=_R101),
    "detr-resnet-101-dc5": DetrConfig(91, depths=_R101, dilation=True),
    "table-transformer-detection": DETECTION,
    "table-transformer-structure": STRUCTURE,
}
ARCHITECTURES = {
    **{name: Architecture(config, family_of(config).resize(config)) for name, config in _CONFIGS.items()},
    "lwdetr-nano": Architecture(SIZES["nano"], Exactly(320, 320)),
}


def from_scratch(name: str, classes: tuple[str, ...], *, size: Size | None, seed: int) -> LoadedModel:
    """Build a model with random weights.

    Args:
        name: name of an architecture.
        classes: class names.
        size: image size, or None for the architecture's default.
        seed: random seed of the weights.

    Raises:
        ModelError: there is no such architecture, or it does not support that size.
    """
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture is called {name!r}; there are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    config = replace(architecture.config, num_classes=len(classes))
    family = family_of(config)
    rule = architecture.resize if size is None else family.rule_for(size, config)
    torch.manual_seed(seed)
    network = family.network(config)
    initialize(network)
    return LoadedModel(name, network, classes, Preprocessing(rule, family.resample))


def pretrained(
    model: str,
    classes: tuple[str, ...],
    *,
    size: Size | None,
    revision: str | None,
    offline: bool,
    class_names: Sequence[str] | None,
    seed: int,
) -> tuple[LoadedModel, int]:
    """Load a model and replace its class heads; classes that it knows by name keep their weights.

    The stem of a ResNet is frozen, as in DETR's own training.

    Args:
        model: known name, Hub repository, folder or file, as for `find`.
        classes: class names of the dataset.
        size: image size, or None for the model's own.
        revision: revision of a Hub repository.
        offline: use only models in the cache.
        class_names: class names of the pretrained model, or None for those in its files.
        seed: random seed of the weights of unknown classes.

    Returns:
        The model, and how many of the classes it knew.

    Raises:
        UsageError: the number of names differs from that of the model's classes.
        ModelError: the model cannot be loaded, does not support that size, or could not be saved again.
    """
    checkpoint = find(os.fspath(model), revision=revision, offline=offline)
    loaded = load_checkpoint(checkpoint, size=size, class_names=class_names)
    config = loaded.network.config
    family_of(config).write_config(config)  # raises if it could not be saved
    known = sum(map(bool, matching_labels(classes, loaded.class_names)))
    if loaded.class_names != classes:
        torch.manual_seed(seed)
        network = with_classes(loaded.network, loaded.class_names, classes)
        loaded = replace(loaded, network=network, class_names=classes)
    freeze_stem(loaded.network)
    return loaded, known
