"""What training frameworks put around a network's weights: dictionaries, prefixes of names, tensors of their own."""

import re
from argparse import Namespace
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ..errors import ModelError

WEIGHTS = ("ema_model", "model_ema", "ema", "ema_state_dict", "model", "model_state_dict", "state_dict", "module")
"""Keys under which checkpoints keep weights. Averaged ones come first: they are the ones to use."""
ARGUMENTS = ("args", "hyper_parameters")
"""Keys under which checkpoints keep what the training was told."""

_WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?<![^._])ema(?![^._])")
_LEFTOVER = re.compile(r"(?:criterion|loss|losses|\w+_loss|loss_\w+|matcher|optimizer|metrics?|\w+_metrics?)\.")
_USUAL = ("", "model.")


def weights_in(content: object) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one that a training checkpoint holds; none where there is none."""
    if not isinstance(content, dict):
        return {}
    for key in WEIGHTS:
        if isinstance(content.get(key), dict) and (tensors := weights_in(content[key])):
            return tensors
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def arguments_in(content: object) -> Mapping[str, Any] | None:
    """What the training that wrote a checkpoint was told, where it kept that."""
    if not isinstance(content, dict):
        return None
    for key in ARGUMENTS:
        match content.get(key):
            case Namespace() | SimpleNamespace() as told:
                return vars(told)
            case dict() as told:
                return told
    return None


def network_names(names: Collection[str], marks: Collection[str]) -> dict[str, str]:
    """The tensors that are the network's, without what wraps their names.

    Where a file holds a network and its average, these are the average's. What losses, metrics and optimizers keep is
    left out; any other tensor stays, by its full name.

    Args:
        names: the names in the file.
        marks: names of which each layout has one.

    Returns:
        The network's own name of each tensor → its name in the file.

    Raises:
        ModelError: the file holds several networks, and none is the average of the other.
    """
    bare: dict[str, str] = {}
    for name in names:
        if bare.setdefault(_WRAPPER.sub("", name), name) != name:
            raise ModelError(f"it holds both {bare[_WRAPPER.sub('', name)]} and {name}, of which one is to be used")
    prefixes = {name.removesuffix(mark) for name in bare for mark in marks if f".{name}".endswith(f".{mark}")}
    if not prefixes:
        return bare
    prefix = _chosen(prefixes)
    own = {name.removeprefix(prefix): name for name in bare if name.startswith(prefix)}
    own = {name: full for name, full in own.items() if not _LEFTOVER.match(name)}
    copies = {other + name for other in prefixes - {prefix} for name in own}
    for name in bare:
        if not name.startswith(prefix) and name not in copies and not _LEFTOVER.match(name):
            own[name] = name
    if not prefix:  # the copies' names begin with nothing, too
        own = {name: full for name, full in own.items() if full not in copies}
    return {name: bare[full] for name, full in own.items()}


def _chosen(prefixes: Collection[str]) -> str:
    first, *others = sorted(prefixes, key=_rank)
    if others and _rank(others[0]) == _rank(first):
        raise ModelError(f"it holds several networks ({', '.join(sorted(prefixes))}), of which one is to be used")
    return first


def _rank(prefix: str) -> tuple[bool, bool]:
    return not _AVERAGED.search(prefix), prefix not in _USUAL
