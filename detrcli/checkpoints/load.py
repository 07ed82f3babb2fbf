"""Loading a network with its weights, class names and preprocessing."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import ImageSizeError, ModelError, ModelWarning
from ..images.resize import Size, fixed_size
from .class_names import check_class_names, checkpoint_class_names
from .families import FAMILIES, Family, Network
from .find import PREPROCESSOR, Checkpoint, find
from .layouts import Layout
from .model_types import ONLY_SUPPORTED, SUPPORTED, unsupported_model
from .names import DEFAULT_MODEL
from .preprocessing import Preprocessing, preprocessing, resizes
from .read import read_weights
from .unwrap import unwrap_names

MAX_LISTED = 4
"""Names that an error lists."""
COUNTER = ".num_batches_tracked"
"""Suffix of batch norm's counters, which are not needed, and not in all files."""
DEFAULT_SIZE = 640
"""Size for models whose files say that images are not resized."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode, and how to use it.

    Attributes:
        name: what the user called it.
        network: the network, in float32, as trained.
        class_names: the name of each label.
        preprocessing: how its images are prepared.
        notes: lines on properties that no tensor tells.
    """

    name: str
    network: Network
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()


def load_checkpoint(
    checkpoint: Checkpoint, *, size: Size | None = None, class_names: Sequence[str] | None = None
) -> LoadedModel:
    """Load a model.

    Args:
        checkpoint: its files.
        size: size of its images, if not that of its files or its paper.
        class_names: the name of each label, if not those of its files.

    Raises:
        UsageError: there is not one class name for each label.
        ModelError: the files are damaged, of another model, or their tensors do not match its network.
    """
    contents = read_weights(checkpoint.weights)
    checkpoint = replace(checkpoint, arguments=contents.arguments)
    names = _unwrap_names(contents.tensors, checkpoint)
    family, layout = _recognize(names, checkpoint)
    tensors, origin = layout.to_ours({name: contents.tensors[full] for name, full in names.items()})
    origin = {ours: names[published] for ours, published in origin.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    _check_values(tensors, origin, checkpoint)
    with torch.device("meta"), _NoInitialValues():
        network = family.build(checkpoint, tensors)
    expected = network.state_dict()
    counters = {name: torch.tensor(0) for name in expected if name.endswith(COUNTER)}
    _check_match({name: expected[name] for name in expected if name not in counters}, tensors, origin, checkpoint)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()} | counters, assign=True)
    rules = _preprocessing(checkpoint, family, network.config, size)
    count = network.config.num_classes
    if count < 1:
        raise ModelError(f"the model in {checkpoint.weights} has no classes")
    if class_names is None:
        class_names = checkpoint_class_names(checkpoint, count, family.datasets, family.numbering(checkpoint))
    else:
        class_names = check_class_names(class_names, count, checkpoint.name)
    network = network.eval().to(memory_format=torch.channels_last)
    return LoadedModel(checkpoint.name, network, class_names, rules, family.notes(checkpoint))


def _unwrap_names(tensors: Collection[str], checkpoint: Checkpoint) -> dict[str, str]:
    try:
        return unwrap_names(tensors, [layout.mark for family in FAMILIES for layout in family.layouts])
    except ModelError as error:
        raise ModelError(f"{checkpoint.weights} cannot be loaded: {error}") from error


def _recognize(names: Collection[str], checkpoint: Checkpoint) -> tuple[Family[Any], Layout]:
    unsupported = unsupported_model(names)
    if unsupported is not None:
        raise ModelError(f"{checkpoint.weights} is {unsupported}; {ONLY_SUPPORTED}")
    for family in FAMILIES:
        for layout in family.layouts:
            if layout.mark in names and family.claims(checkpoint, names):
                _check_type(family, checkpoint)
                return family, layout
    marks = " or ".join(f"{layout.mark} ({layout.title})" for family in FAMILIES for layout in family.layouts)
    raise ModelError(f"{checkpoint.weights} has no {marks}, so its layout is unknown; it has {_some(names)}")


def _check_type(family: Family[Any], checkpoint: Checkpoint) -> None:
    """Refuse a config.json of another family."""
    described = SUPPORTED.get((checkpoint.config or {}).get("model_type", ""), family.name)
    if described != family.name:
        raise ModelError(f"{checkpoint.weights} is {family.name}, but its config.json describes {described}")


def _check_values(tensors: Mapping[str, Tensor], origin: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Refuse tensors that cannot be weights."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"{checkpoint.weights} is damaged: {origin[name]} is of type {kind}")
        # a finite sum shows it ten times faster
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            raise ModelError(f"{checkpoint.weights} is damaged: {origin[name]} has NaN or infinity")


def _check_match(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: Mapping[str, str], checkpoint: Checkpoint
) -> None:
    """Refuse tensors that do not match the network's in names and shapes."""
    missing = [name for name in expected if name not in tensors]
    unexpected = dict.fromkeys(origin[name] for name in tensors if name not in expected)
    problems = [f"missing {_some(missing)}"] if missing else []
    problems += [f"unexpected {_some(unexpected)}"] if unexpected else []
    if not problems:
        wrong = [
            f"{origin[name]} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if tensors[name].shape != tensor.shape
        ]
        problems = [_some(wrong, "; ")] if wrong else []
    if problems:
        raise ModelError(f"the weights in {checkpoint.weights} do not match the network: {'; '.join(problems)}")


def _some(names: Iterable[str], separator: str = ", ") -> str:
    names = list(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return separator.join(names[:MAX_LISTED]) + more


def _preprocessing(checkpoint: Checkpoint, family: Family[Any], config: Any, size: Size | None) -> Preprocessing:
    """Read the preprocessing, and warn if the files do not say what size images are resized to."""
    settings = checkpoint.preprocessor
    sized = settings is None or resizes(settings)
    trained, usual = family.trained_size(checkpoint), family.resize(config)
    rule = trained or (usual if sized or fixed_size(usual) else usual.for_size(DEFAULT_SIZE))
    rules = preprocessing(checkpoint, Preprocessing(rule, family.resample))
    if size is not None:
        return replace(rules, resize=family.rule_for(size, config, rules.resize))
    try:
        family.check(rules.resize, config)
    except ModelError as error:
        source = checkpoint.weights if settings is None else checkpoint.weights.parent / PREPROCESSOR
        raise ImageSizeError(f"the image size in {source} is impossible: {error}") from error
    if trained is None and (settings is None or not sized):
        reason = f"has no {PREPROCESSOR}" if sized else f"has do_resize = false in its {PREPROCESSOR}"
        warnings.warn(f"{checkpoint.name} {reason}; images are resized to {rules.resize}", ModelWarning, stacklevel=3)
    return rules


class _NoInitialValues(TorchFunctionMode):
    """Skips initial values: they would be replaced, and on the meta device some of them load torch._dynamo."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_model(
    model: str | os.PathLike[str] = DEFAULT_MODEL, *, revision: str | None = None, offline: bool = False
) -> Network:
    """Load the bare network, as trained, in eval mode and float32, on the CPU.

    Its `forward` takes normalized pixels (B, 3, H, W) and, for DETR and Table Transformer, a mask (B, H, W), True on
    padding, or None. It returns an object with `logits` (B, Q, C) and `boxes` (B, Q, 4) as cx, cy, w, h relative to the
    image; boxes of LW-DETR and RF-DETR may reach beyond it.

    Args:
        model: a known name, `org/name` on the Hugging Face Hub, a folder in the Hub's layout, or a weights file.
        revision: branch, tag or commit on the Hub.
        offline: use only the cache.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
    """
    return load_checkpoint(find(os.fspath(model), revision=revision, offline=offline)).network
