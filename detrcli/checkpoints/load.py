"""From files to a network with its weights, and what is known about it."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ModelError
from ..models.detr import Detr
from .config import Preprocessing, class_names, detr_config, preprocessing
from .find import Checkpoint, find
from .layouts import LAYOUTS
from .names import DEFAULT_MODEL
from .read import read_tensors

SHOWN = 4
"""How many keys an error names."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode and what a user of it must know.

    Attributes:
        name: what the user called it.
        network: the network, in float32, as trained.
        class_names: the name of each label.
        preprocessing: what becomes of a picture before the network sees it.
    """

    name: str
    network: Detr
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def load_checkpoint(checkpoint: Checkpoint) -> LoadedModel:
    """Build the network that a checkpoint holds.

    Raises:
        ModelError: the files are damaged, of another model, or their tensors do not fit one to one.
    """
    tensors, origin = _our_names(read_tensors(checkpoint.weights), checkpoint)
    config = detr_config(checkpoint, tensors)
    with torch.device("meta"):
        network = Detr(config)
    _check(network.state_dict(), tensors, origin, checkpoint)
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network.load_state_dict(tensors, assign=True)
    network = network.eval().to(memory_format=torch.channels_last)
    return LoadedModel(checkpoint.name, network, class_names(checkpoint, config.num_classes), preprocessing(checkpoint))


def _our_names(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    layout = next((layout for layout in LAYOUTS if layout.mark in tensors), None)
    if layout is None:
        raise ModelError(
            f"{checkpoint.weights} holds no model that is known here; it holds {_some(tensors)} "
            f"where {' or '.join(layout.mark for layout in LAYOUTS)} is expected"
        )
    return layout.translate(tensors)


def _check(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], origin: Mapping[str, str], checkpoint: Checkpoint
) -> None:
    missing = [name for name in wanted if name not in given]
    unexpected = [origin[name] for name in given if name not in wanted]
    complaints = []
    if missing:
        complaints.append(f"missing {_some(missing)}")
    if unexpected:
        complaints.append(f"unexpected {_some(dict.fromkeys(unexpected))}")
    if not complaints:
        complaints = [
            f"{origin[name]} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if given[name].shape != tensor.shape
        ]
        complaints = [_some(complaints, "; ")] if complaints else []
    if complaints:
        raise ModelError(f"the weights in {checkpoint.weights} do not fit: {'; '.join(complaints)}")


def _some(names: Collection[str] | Iterable[str], comma: str = ", ") -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return comma.join(names[:SHOWN]) + more


def load_model(
    model: str | os.PathLike[str] = DEFAULT_MODEL, *, revision: str | None = None, offline: bool = False
) -> Detr:
    """Load the bare network, as trained, in eval mode and float32, on the CPU.

    Its `forward` takes normalised pixels (B, 3, H, W) and a mask (B, H, W), True on padding, or None, and returns an
    object with `logits` (B, Q, C) and `boxes` (B, Q, 4) as cx, cy, w, h in 0…1.

    Args:
        model: a known name, `org/name` on the Hugging Face Hub, a folder in the Hub's layout, or a weights file.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the Hub's cache.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
    """
    return load_checkpoint(find(os.fspath(model), revision=revision, offline=offline)).network
