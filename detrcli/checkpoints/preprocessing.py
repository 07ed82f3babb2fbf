"""From preprocessor_config.json to what becomes of a picture before the network sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import ModelError
from ..images.resize import Exactly, ResizeRule, ShortestEdge, Within
from .find import Checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNLIMITED = 2**31 - 1
"""A longest side that no picture has: `transformers` takes no rule without one."""


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


def preprocessing(checkpoint: Checkpoint, default: ResizeRule) -> Preprocessing:
    """What becomes of a picture: off preprocessor_config.json, or as the paper has it.

    Args:
        checkpoint: the model's files.
        default: the family's resize rule, for a model whose files do not name one.

    Raises:
        ModelError: the file says something that cannot be understood.
    """
    settings = checkpoint.preprocessor
    if settings is None:
        return Preprocessing(default)
    normalise = settings.get("do_normalize", True)
    try:
        return Preprocessing(
            resize=_resize_rule(settings, default),
            resample=Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR)),
            scale=float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
            mean=_triple(settings.get("image_mean", IMAGENET_MEAN)) if normalise else (0.0, 0.0, 0.0),
            std=_nonzero(_triple(settings.get("image_std", IMAGENET_STD))) if normalise else (1.0, 1.0, 1.0),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"preprocessor_config.json of {checkpoint.name} cannot be understood: {error}") from error


def as_json(rules: Preprocessing) -> dict[str, Any]:
    """The same as preprocessor_config.json has it."""
    return {
        "do_resize": True,
        "size": _size(rules.resize),
        "resample": int(rules.resample),
        "do_rescale": True,
        "rescale_factor": rules.scale,
        "do_normalize": True,
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
    }


def _size(rule: ResizeRule) -> dict[str, int]:
    match rule:
        case ShortestEdge(shortest, longest):
            return {"shortest_edge": shortest, "longest_edge": UNLIMITED if longest is None else longest}
        case Exactly(width, height):
            return {"height": height, "width": width}
        case Within(width, height):
            return {"max_height": height, "max_width": width}
    raise TypeError(f"no size for {rule}")


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


def _resize_rule(settings: Mapping[str, Any], default: ResizeRule) -> ResizeRule:
    if not settings.get("do_resize", True):
        raise ValueError("do_resize is false, but a size is needed")
    if "size" not in settings:
        return default
    size = settings["size"]
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
    return ShortestEdge(_pixels(shortest), None if longest in (None, UNLIMITED) else _pixels(longest))
