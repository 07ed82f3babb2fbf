"""From preprocessor_config.json to what becomes of an image before the network sees it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import ModelError
from ..images.resize import Exactly, Padded, ResizeRule, ShortestEdge, Within
from .find import PREPROCESSOR, Checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNLIMITED = 2**31 - 1
"""A longest side that no image has: `transformers` takes no rule without one."""
MOST_PIXELS = 2**15
"""The longest side that an image is resized to."""


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image before the network sees it.

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
    """What becomes of an image: off preprocessor_config.json, or as the paper has it.

    Args:
        checkpoint: the model's files.
        default: the resize rule for a model whose files name none.

    Raises:
        ModelError: the file says something that cannot be understood.
    """
    if checkpoint.preprocessor is None:
        return Preprocessing(default)
    try:
        return from_json(checkpoint.preprocessor, default)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{PREPROCESSOR} of {checkpoint.name} cannot be understood: {error}") from error


def names_size(settings: Mapping[str, Any]) -> bool:
    """Whether preprocessor_config.json has images resized."""
    return bool(settings.get("do_resize", True))


def from_json(settings: Mapping[str, Any], default: ResizeRule) -> Preprocessing:
    """What preprocessor_config.json says.

    Args:
        settings: its contents.
        default: the resize rule if it names none.

    Raises:
        TypeError: something is of another type than it should be.
        ValueError: something cannot be done.
        OverflowError: a number is far too large.
    """
    normalise = settings.get("do_normalize", True)
    return Preprocessing(
        resize=_resize_rule(settings, default) if names_size(settings) else default,
        resample=Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR)),
        scale=_positive(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
        mean=_triple(settings.get("image_mean", IMAGENET_MEAN)) if normalise else (0.0, 0.0, 0.0),
        std=tuple(map(_positive, _triple(settings.get("image_std", IMAGENET_STD)))) if normalise else (1.0, 1.0, 1.0),
    )


def as_json(rules: Preprocessing) -> dict[str, Any]:
    """The same as preprocessor_config.json has it."""
    padding = {}
    if isinstance(rules.resize, Padded):
        padding = {"do_pad": True, "pad_size": {"height": rules.resize.height, "width": rules.resize.width}}
    return {
        "do_resize": True,
        "size": _size(rules.resize),
        "resample": int(rules.resample),
        "do_rescale": True,
        "rescale_factor": rules.scale,
        "do_normalize": True,
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
        **padding,
    }


def _size(rule: ResizeRule) -> dict[str, int]:
    match rule:
        case ShortestEdge(shortest, longest):
            return {"shortest_edge": shortest, "longest_edge": UNLIMITED if longest is None else longest}
        case Exactly(width, height):
            return {"height": height, "width": width}
        case Within(width, height):
            return {"max_height": height, "max_width": width}
        case Padded(fit):
            return _size(fit)
    raise TypeError(f"no size for {rule}")


def _triple(values: Any) -> tuple[float, ...]:
    triple = tuple(finite(value) for value in values)
    if len(triple) != 3:
        raise ValueError(f"{len(triple)} channels in {values!r:.80}")
    return triple


def finite(value: Any) -> float:
    """A number.

    Raises:
        TypeError: it is none.
        ValueError: it is none, or has no end.
        OverflowError: it is far too large.
    """
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value!r:.80} is not a finite number")
    return number


def _positive(value: Any) -> float:
    if (number := finite(value)) <= 0:
        raise ValueError(f"{value!r:.80} is not above 0")
    return number


def _pixels(value: Any, most: int = MOST_PIXELS) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"a size of {value!r:.80}")
    return value


def _resize_rule(settings: Mapping[str, Any], default: ResizeRule) -> ResizeRule:
    rule = _fit_rule(settings, default)
    padding = settings.get("pad_size")
    pads = settings.get("do_pad", settings.get("pad_and_return_pixel_mask", True))
    if not pads or padding is None:
        return rule
    padded = _frame(padding)
    width, height = padded.width, padded.height
    match rule:
        case ShortestEdge(_, longest):
            fits = longest is not None and longest <= min(width, height)
        case Exactly(inner_width, inner_height) | Within(inner_width, inner_height):
            fits = inner_width <= width and inner_height <= height
        case _:
            fits = False
    if not fits:
        raise ValueError(f"pad_size {width} × {height} is too small for images that are resized to {rule}")
    return rule if rule == padded else Padded(rule, width, height)


def _frame(size: Any) -> Exactly:
    match size:
        case {"height": height, "width": width} | [height, width]:
            return Exactly(_pixels(width), _pixels(height))
    raise ValueError(f"size {size!r:.80}")


def _fit_rule(settings: Mapping[str, Any], default: ResizeRule) -> ResizeRule:
    if "size" not in settings:
        return default
    size = settings["size"]
    match size:
        case int() | float():
            shortest, longest = size, settings.get("max_size", 1333)
        case {"shortest_edge": shortest}:
            longest = size.get("longest_edge", settings.get("max_size"))
        case {"longest_edge": longest}:
            return Within(_pixels(longest), _pixels(longest))
        case {"max_height": height, "max_width": width}:
            return Within(_pixels(width), _pixels(height))
        case _:
            return _frame(size)
    return ShortestEdge(_pixels(shortest), None if longest in (None, UNLIMITED) else _pixels(longest, most=UNLIMITED))
