"""Taking off what training frameworks put around a network's weights: dictionaries, prefixes, tensors of their own."""

import re
from argparse import Namespace
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ..errors import ModelError

AVERAGED = "average_model_state_dict"
"""Key of the EMA weights in the state of a Lightning callback, such as RF-DETR's."""
WEIGHTS = (
    "ema_model", "model_ema", "ema", "ema_state_dict", "model", "model_state_dict", AVERAGED, "state_dict", "module",
)  # fmt: skip
"""Keys of weights in checkpoints; EMA weights first, as they are preferred, unless `model` has the better of both."""
AVERAGES = "n_averaged"
"""Counter of PyTorch's `AveragedModel`."""
ARGUMENTS = ("hyper_parameters", "args", "model_config")
"""Keys of training arguments in checkpoints; where several say the same, the last is used."""

_WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_EMA = re.compile(r"(?<![^._])ema(?![^._])")
_NOT_THE_NETWORK = re.compile(r"(?:criterion|loss|losses|\w+_loss|loss_\w+|matcher|optimizer|metrics?|\w+_metrics?)\.")
_USUAL_PREFIXES = ("", "model.")


def unwrap_weights(content: object) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of the one inside a training checkpoint; empty if there are none."""
    if not isinstance(content, dict):
        return {}
    callbacks = content.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict) and AVERAGED in state:
            content = content | {AVERAGED: state[AVERAGED]}
    for key in WEIGHTS:
        if isinstance(content.get(key), dict) and (tensors := unwrap_weights(content[key])):
            return tensors
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor) and name != AVERAGES}


def training_arguments(content: object) -> Mapping[str, Any] | None:
    """Return the arguments of the training run that wrote a checkpoint, or None if they are not in it."""
    if not isinstance(content, dict):
        return None
    found: dict[str, Any] | None = None
    for key in ARGUMENTS:
        match content.get(key):
            case Namespace() | SimpleNamespace() as arguments:
                found = (found or {}) | vars(arguments)
            case dict() as arguments:
                found = (found or {}) | arguments
    return found


def unwrap_names(names: Collection[str], marks: Collection[str]) -> dict[str, str]:
    """Map the network's own tensor names to the names in a file.

    If the file has both a network and its EMA, the EMA is used. Tensors of losses, metrics and optimizers are left
    out; any other tensor stays, by its full name.

    Args:
        names: the names in the file.
        marks: the mark of each layout.

    Raises:
        ModelError: the file has several networks, and none is the EMA of the other.
    """
    bare: dict[str, str] = {}
    for name in names:
        if bare.setdefault(_WRAPPER.sub("", name), name) != name:
            raise ModelError(f"it is ambiguous: it has both {bare[_WRAPPER.sub('', name)]} and {name}")
    prefixes = {name.removesuffix(mark) for name in bare for mark in marks if f".{name}".endswith(f".{mark}")}
    if not prefixes:
        return bare
    prefix = _best(prefixes)
    own = {name.removeprefix(prefix): name for name in bare if name.startswith(prefix)}
    own = {name: full for name, full in own.items() if not _NOT_THE_NETWORK.match(name)}
    copies = {other + name for other in prefixes - {prefix} for name in own}
    for name in bare:
        if not name.startswith(prefix) and name not in copies and not _NOT_THE_NETWORK.match(name):
            own[name] = name
    if not prefix:  # the copies start with the empty prefix, too
        own = {name: full for name, full in own.items() if full not in copies}
    return {name: bare[full] for name, full in own.items()}


def _best(prefixes: Collection[str]) -> str:
    first, *others = sorted(prefixes, key=_rank)
    if others and _rank(others[0]) == _rank(first):
        raise ModelError(f"it is ambiguous: it has several networks ({', '.join(sorted(prefixes))})")
    return first


def _rank(prefix: str) -> tuple[bool, bool]:
    return not _EMA.search(prefix), prefix not in _USUAL_PREFIXES
