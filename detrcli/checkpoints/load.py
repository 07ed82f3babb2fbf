"""From files to a network with its weights, and what is known about it."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import ModelError, ModelWarning
from .class_names import check_class_names
from .config import class_names as read_class_names
from .families import FAMILIES, Family, Network, Size
from .find import CONFIG, MODEL_TYPES, PREPROCESSOR, Checkpoint, find
from .layouts import Layout
from .model_types import unsupported_model
from .names import DEFAULT_MODEL
from .preprocessing import Preprocessing, names_size, preprocessing
from .read import read_weights
from .unwrap import network_names

SHOWN = 4
"""How many keys an error names."""
COUNTER = ".num_batches_tracked"
UNNAMED_SIZE = 640
"""What images are resized to for a model whose files say that they are not resized."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode and what a user of it must know.

    Attributes:
        name: what the user called it.
        network: the network, in float32, as trained.
        class_names: the name of each label.
        preprocessing: what becomes of an image before the network sees it.
        notes: lines on what a user may want to check, as it was told by no tensor.
    """

    name: str
    network: Network
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()


def load_checkpoint(
    checkpoint: Checkpoint, *, size: Size | None = None, class_names: Sequence[str] | None = None
) -> LoadedModel:
    """Build the network that a checkpoint holds.

    Args:
        checkpoint: the model's files.
        size: what to resize images to, if not to what the files or the paper say.
        class_names: the name of each label, if not what the files say.

    Raises:
        UsageError: there are not as many names as labels.
        ModelError: the files are damaged, of another model, or their tensors do not fit one to one.
    """
    contents = read_weights(checkpoint.weights)
    checkpoint = replace(checkpoint, arguments=contents.arguments)
    bare = _network_names(contents.tensors, checkpoint)
    family, layout = _kind(bare, checkpoint)
    ours, translated = layout.translate({name: contents.tensors[full] for name, full in bare.items()})
    origin = {name: bare[theirs] for name, theirs in translated.items()}
    _check_values(ours, origin, checkpoint)
    with torch.device("meta"), _NoInitialValues():
        network = _built(family, checkpoint, ours)
    wanted = network.state_dict()
    # how many batches a batch norm has seen is of no use here, and not all files say it
    counters = {name: torch.tensor(0) for name in wanted if name.endswith(COUNTER)}
    ours = {name: tensor for name, tensor in ours.items() if not name.endswith(COUNTER)}
    _check({name: wanted[name] for name in wanted if name not in counters}, ours, origin, checkpoint)
    network.load_state_dict({name: tensor.float() for name, tensor in ours.items()} | counters, assign=True)
    rules = _rules(checkpoint, family, size)
    count = network.config.num_classes
    if count < 1:
        raise ModelError(f"the model in {checkpoint.weights} knows no class")
    if class_names is None:
        labels = read_class_names(checkpoint, count)
    else:
        labels = check_class_names(class_names, count, checkpoint.name)
    network = network.eval().to(memory_format=torch.channels_last)
    return LoadedModel(checkpoint.name, network, labels, rules, family.notes(checkpoint))


def _check_values(ours: Mapping[str, Tensor], origin: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Refuse tensors that are no weights."""
    for name, tensor in ours.items():
        if name.endswith(COUNTER):
            continue
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"the weights in {checkpoint.weights} are no weights: {origin[name]} is of type {kind}")
        # a finite sum says the same ten times faster
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            raise ModelError(f"{checkpoint.weights} is damaged: {origin[name]} holds NaN or infinity")


def _built(family: Family, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Network:
    try:
        return family.build(checkpoint, tensors)
    except (ValueError, TypeError, IndexError, OverflowError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(
            f"the {CONFIG} of {checkpoint.name} and its weights describe no network ({error!s:.120})"
        ) from error


def _rules(checkpoint: Checkpoint, family: Family, size: Size | None) -> Preprocessing:
    """What becomes of an image, with a word where the model's files do not say to what size it is resized."""
    settings = checkpoint.preprocessor
    sized = settings is None or names_size(settings)
    rules = preprocessing(checkpoint, family.resize if sized else family.sized(UNNAMED_SIZE))
    if size is not None:
        return replace(rules, resize=family.rule_for(size, rules.resize))
    family.check(rules.resize)
    if settings is None or not sized:
        reason = (
            f"has no {PREPROCESSOR}" if sized else f"does no resizing by itself (do_resize is false in {PREPROCESSOR})"
        )
        warnings.warn(f"{checkpoint.name} {reason}; images are resized to {rules.resize}", ModelWarning, stacklevel=2)
    return rules


class _NoInitialValues(TorchFunctionMode):
    """Leaves new parameters as they are: they are about to be replaced, and on "meta" some inits load torch._dynamo."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _network_names(tensors: Collection[str], checkpoint: Checkpoint) -> dict[str, str]:
    try:
        return network_names(tensors, [layout.mark for family in FAMILIES for layout in family.layouts])
    except ModelError as error:
        raise ModelError(f"{checkpoint.weights} cannot be used: {error}") from error


def _kind(names: Collection[str], checkpoint: Checkpoint) -> tuple[Family, Layout]:
    other = unsupported_model(names)
    if other is not None:
        raise ModelError(f"{checkpoint.weights} is {other}; this tool runs {' and '.join(MODEL_TYPES.values())}")
    for family in FAMILIES:
        for layout in family.layouts:
            if layout.mark in names:
                return family, layout
    marks = " or ".join(f"{layout.mark} ({layout.title})" for family in FAMILIES for layout in family.layouts)
    raise ModelError(f"{checkpoint.weights} has no {marks}, so its layout is unknown; it holds {_some(names)}")


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
) -> Network:
    """Load the bare network, as trained, in eval mode and float32, on the CPU.

    Its `forward` takes normalised pixels (B, 3, H, W) and, for DETR, a mask (B, H, W), True on padding, or None. It
    returns an object with `logits` (B, Q, C) and `boxes` (B, Q, 4) as cx, cy, w, h relative to the image, beyond
    which LW-DETR's may reach.

    Args:
        model: a known name, `org/name` on the Hugging Face Hub, a folder in the Hub's layout, or a weights file.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the Hub's cache.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
    """
    return load_checkpoint(find(os.fspath(model), revision=revision, offline=offline)).network
