"""What a training starts from: a model that loads, or random weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..checkpoints.families import DETR, LWDETR, Size
from ..checkpoints.find import find
from ..checkpoints.load import LoadedModel, load_checkpoint
from ..checkpoints.preprocessing import Preprocessing
from ..checkpoints.save import detr_as_json
from ..classes import matching_labels
from ..errors import ModelError
from ..images.resize import Exactly, ResizeRule
from ..models.detr import Detr, DetrConfig
from ..models.lwdetr import SIZES, LwDetr, LwDetrConfig
from .initialize import initialize, with_classes
from .optimizer import freeze_stem


@dataclass(frozen=True)
class Architecture:
    """A network that can be trained from random weights.

    Attributes:
        config: its sizes, but for the classes.
        resize: what images it is made for.
    """

    config: DetrConfig | LwDetrConfig
    resize: ResizeRule


_R101 = (3, 4, 23, 3)
ARCHITECTURES = {
    **{f"lwdetr-{name}": Architecture(config, LWDETR.resize) for name, config in SIZES.items()},
    "lwdetr-nano": Architecture(SIZES["nano"], Exactly(320, 320)),
    "detr-resnet-50": Architecture(DetrConfig(91), DETR.resize),
    "detr-resnet-50-dc5": Architecture(DetrConfig(91, dilation=True), DETR.resize),
    "detr-resnet-101": Architecture(DetrConfig(91, depths=_R101), DETR.resize),
    "detr-resnet-101-dc5": Architecture(DetrConfig(91, depths=_R101, dilation=True), DETR.resize),
}


def from_scratch(name: str, classes: tuple[str, ...], *, size: Size | None, seed: int) -> LoadedModel:
    """A network with random weights.

    Args:
        name: of an architecture.
        classes: the names of the labels.
        size: what images are resized to, if not to what the architecture is made for.
        seed: of the weights.

    Raises:
        ModelError: there is no such architecture, or it cannot take that size.
    """
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture is called {name!r}; there are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    config = replace(architecture.config, num_classes=len(classes))
    family = DETR if isinstance(config, DetrConfig) else LWDETR
    rule = architecture.resize if size is None else family.rule_for(size)
    torch.manual_seed(seed)
    network = Detr(config) if isinstance(config, DetrConfig) else LwDetr(config)
    initialize(network)
    return LoadedModel(name, network, classes, Preprocessing(rule))


def pretrained(
    model: str,
    classes: tuple[str, ...],
    *,
    size: Size | None,
    revision: str | None,
    offline: bool,
    names: Sequence[str] | None,
    seed: int,
) -> tuple[LoadedModel, int]:
    """A model that loads, with heads for these classes: those that it knows by name keep their weights.

    The stem of a ResNet will not learn, as in DETR's own training.

    Args:
        model: as `find` takes it.
        classes: the names of the labels that it is to have.
        size: what images are resized to, if not to what the model's files say.
        revision: as `find` takes it.
        offline: as `find` takes it.
        names: of the labels that the model has before, if not what its files say.
        seed: of the weights of classes that it does not know.

    Returns:
        The model, and how many of the classes it knows.

    Raises:
        UsageError: there are not as many names as labels.
        ModelError: it cannot be loaded, cannot take that size, or could not be saved again.
    """
    loaded = load_checkpoint(find(os.fspath(model), revision=revision, offline=offline), size=size, class_names=names)
    if isinstance(loaded.network, Detr):
        detr_as_json(loaded.network.config)  # refuses what could not be saved
    known = sum(map(bool, matching_labels(classes, loaded.class_names)))
    if loaded.class_names != classes:
        torch.manual_seed(seed)
        network = with_classes(loaded.network, loaded.class_names, classes)
        loaded = replace(loaded, network=network, class_names=classes)
    freeze_stem(loaded.network)
    return loaded, known
