"""From config.json, preprocessor_config.json and the tensors' shapes to a model's configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import ModelError
from ..images.resize import Exactly, ResizeRule, ShortestEdge, Within
from ..models.detr import DetrConfig
from .classes import names_for
from .find import Checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of a picture before the network sees it.

    Attributes:
        resize: how large it becomes.
        resample: Pillow's filter for that.
        scale: factor on the 8-bit values.
        mean: of each channel, taken off after scaling.
        std: of each channel, divided by at last.
    """

    resize: ResizeRule = field(default_factory=ShortestEdge)
    resample: Image.Resampling = Image.Resampling.BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def detr_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> DetrConfig:
    """The sizes of a DETR: off its tensors (by our names), and what no shape tells off config.json.

    A file without config.json is taken for DC5 if its name or its folder's says so, as the published ones do.

    Raises:
        ModelError: tensors are missing, or config.json asks for something that this DETR has not.
    """
    config = checkpoint.config or {}
    _refuse_unknown(config)
    heads, dropout = config.get("encoder_attention_heads", 8), config.get("dropout", 0.1)
    if not isinstance(dropout, int | float):
        raise ModelError(f"config.json of {checkpoint.name} says dropout = {dropout!r}, which is no number")
    try:
        classes, hidden = tensors["class_head.weight"].shape
        if type(heads) is not int or heads < 1 or hidden % heads:
            raise ModelError(
                f"config.json of {checkpoint.name} says encoder_attention_heads = {heads!r}, "
                f"which does not divide the width {hidden}"
            )
        return DetrConfig(
            num_classes=classes - 1,
            num_queries=tensors["object_queries.weight"].shape[0],
            depths=tuple(_count(tensors, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
            dilation=_dilation(checkpoint),
            hidden_dim=hidden,
            heads=heads,
            feedforward=tensors["encoder.layers.0.feedforward.0.weight"].shape[0],
            encoder_layers=_count(tensors, r"encoder\.layers\.(\d+)\."),
            decoder_layers=_count(tensors, r"decoder\.layers\.(\d+)\."),
            dropout=dropout,
        )
    except KeyError as error:
        raise ModelError(f"{checkpoint.weights} is not a whole DETR: it lacks {error.args[0]}") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"{checkpoint.weights} is no DETR: its tensors have other shapes") from error


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _dilation(checkpoint: Checkpoint) -> bool:
    if checkpoint.config is not None:
        nested = checkpoint.config.get("backbone_config") or {}
        return bool(checkpoint.config.get("dilation")) or nested.get("output_stride") == 16
    place: Path = checkpoint.weights.absolute()
    return "dc5" in f"{place.parent.name}/{place.name}".lower()


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    nested = config.get("backbone_config") or {}
    if not isinstance(nested, dict):
        raise ModelError(f"config.json says backbone_config = {nested!r}, which is no object")
    expected = [
        ("activation_function", config.get("activation_function", "relu"), "relu"),
        ("position_embedding_type", config.get("position_embedding_type", "sine"), "sine"),
        ("decoder_attention_heads", config.get("decoder_attention_heads"), config.get("encoder_attention_heads")),
        ("backbone_config.layer_type", nested.get("layer_type", "bottleneck"), "bottleneck"),
        ("backbone_config.downsample_in_bottleneck", nested.get("downsample_in_bottleneck", False), False),
    ]
    for name, value, known in expected:
        if value != known:
            raise ModelError(f"config.json says {name} = {value!r}; this tool runs DETR with {known!r} only")


def class_names(checkpoint: Checkpoint, count: int) -> tuple[str, ...]:
    """The name of each class: off config.json, or the data set's whose number of classes this is."""
    names = (checkpoint.config or {}).get("id2label")
    if not isinstance(names, dict):
        return names_for(count)
    return tuple(str(names.get(str(label), f"class {label}")) for label in range(count))


def preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    """What becomes of a picture: off preprocessor_config.json, or as the paper has it.

    Raises:
        ModelError: the file says something that cannot be understood.
    """
    settings = checkpoint.preprocessor
    if settings is None:
        return Preprocessing()
    normalise = settings.get("do_normalize", True)
    try:
        return Preprocessing(
            resize=_resize_rule(settings),
            resample=Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR)),
            scale=float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
            mean=_triple(settings.get("image_mean", IMAGENET_MEAN)) if normalise else (0.0, 0.0, 0.0),
            std=_nonzero(_triple(settings.get("image_std", IMAGENET_STD))) if normalise else (1.0, 1.0, 1.0),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"preprocessor_config.json of {checkpoint.name} cannot be understood: {error}") from error


def _triple(values: Any) -> tuple[float, ...]:
    triple = tuple(float(value) for value in values)
    if len(triple) != 3:
        raise ValueError(f"{len(triple)} channels in {values!r}")
    return triple


def _nonzero(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(values):
        raise ValueError(f"division by {values!r}")
    return values


def _pixels(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"a size of {value!r}")
    return value


def _resize_rule(settings: Mapping[str, Any]) -> ResizeRule:
    if not settings.get("do_resize", True):
        raise ValueError("do_resize is false, but a size is needed")
    size = settings.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    match size:
        case int():
            shortest, longest = size, settings.get("max_size", 1333)
        case {"shortest_edge": shortest}:
            longest = size.get("longest_edge", settings.get("max_size"))
        case {"height": height, "width": width}:
            return Exactly(_pixels(width), _pixels(height))
        case {"max_height": height, "max_width": width}:
            return Within(_pixels(width), _pixels(height))
        case _:
            raise ValueError(f"size {size!r}")
    return ShortestEdge(_pixels(shortest), None if longest is None else _pixels(longest))
