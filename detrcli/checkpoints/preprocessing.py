"""How a model's images are prepared, from and to preprocessor_config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import ModelError
from ..images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    Padded,
    PillowFilter,
    Resample,
    ResizeRule,
    ShortestEdge,
    Within,
    longest_edge,
)
from .find import PREPROCESSOR, Checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNLIMITED = 2**31 - 1
"""Longest side that stands for no limit, as `transformers` requires one."""
MAX_SIDE = 2**15
"""Longest side that an image may be resized to."""
EXACT_LONGEST_EDGE = "exact_longest_edge"
"""Key of our own: whether `shortest_edge` and `longest_edge` mean `ExactLongestEdge`, as always in `transformers`."""
SAMPLING_PROCESSOR = "RfDetrImageProcessor"
"""The image processor of `transformers` that resizes by `BilinearSampling`."""


@dataclass(frozen=True)
class Preprocessing:
    """Preparation of an image for a network.

    Attributes:
        resize: rule for its size.
        resample: how the pixels of the resized image are computed.
        scale: factor on the values 0…255.
        mean: mean of each channel, subtracted after scaling.
        std: standard deviation of each channel, divided by last.
    """

    resize: ResizeRule = field(default_factory=ShortestEdge)
    resample: Resample = PILLOW_BILINEAR
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def preprocessing(checkpoint: Checkpoint, default: Preprocessing) -> Preprocessing:
    """Read the preprocessing from preprocessor_config.json, or return the paper's.

    Args:
        checkpoint: the model's files.
        default: the paper's.

    Raises:
        ModelError: the settings are invalid.
    """
    if checkpoint.preprocessor is None:
        return default
    try:
        return from_json(checkpoint.preprocessor, default)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{PREPROCESSOR} of {checkpoint.name} is invalid: {error}") from error


def resizes(settings: Mapping[str, Any]) -> bool:
    """Tell whether preprocessor_config.json has images resized."""
    return bool(settings.get("do_resize", True))


def from_json(settings: Mapping[str, Any], default: Preprocessing) -> Preprocessing:
    """Parse preprocessor_config.json.

    Args:
        settings: its contents.
        default: for what it does not say.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value is invalid.
        OverflowError: a number is far too large.
    """
    normalize = settings.get("do_normalize", True)
    return Preprocessing(
        resize=_resize_rule(settings, default.resize) if resizes(settings) else default.resize,
        resample=_resample(settings, default.resample),
        scale=_positive(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
        mean=_triple(settings.get("image_mean", IMAGENET_MEAN)) if normalize else (0.0, 0.0, 0.0),
        std=tuple(map(_positive, _triple(settings.get("image_std", IMAGENET_STD)))) if normalize else (1.0, 1.0, 1.0),
    )


def as_json(rules: Preprocessing) -> dict[str, Any]:
    """Return the contents of preprocessor_config.json."""
    ours = {EXACT_LONGEST_EDGE: True} if isinstance(rules.resize, ExactLongestEdge) else {}
    padding = {}
    if isinstance(rules.resize, Padded):
        padding = {"do_pad": True, "pad_size": {"height": rules.resize.height, "width": rules.resize.width}}
    return {
        "do_resize": True,
        "size": _size(rules.resize),
        **ours,
        **_as_settings(rules.resample),
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
    raise TypeError(f"{rule} has no size in preprocessor_config.json")


def _as_settings(resample: Resample) -> dict[str, Any]:
    match resample:
        case PillowFilter(filter):
            return {"resample": int(filter)}
        case BilinearSampling():
            return {"resample": int(Image.Resampling.BILINEAR), "image_processor_type": SAMPLING_PROCESSOR}
    raise TypeError(f"{resample} has no name in preprocessor_config.json")


def _resample(settings: Mapping[str, Any], default: Resample) -> Resample:
    processor = settings.get("image_processor_type")
    filter = Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR))
    samples = isinstance(default, BilinearSampling) if processor is None else processor == SAMPLING_PROCESSOR
    if not samples:
        return PillowFilter(filter)
    if filter != Image.Resampling.BILINEAR:
        raise ValueError(f"resample {filter.name.lower()} is not supported without antialiasing")
    return BilinearSampling()


def _triple(values: Any) -> tuple[float, ...]:
    triple = tuple(finite(value) for value in values)
    if len(triple) != 3:
        raise ValueError(f"{values!r:.80} has {len(triple)} channels, not 3")
    return triple


def finite(value: Any) -> float:
    """Convert to a finite number.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not a number, or not finite.
        OverflowError: it is far too large.
    """
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value!r:.80} is not a finite number")
    return number


def _positive(value: Any) -> float:
    if (number := finite(value)) <= 0:
        raise ValueError(f"{value!r:.80} is not above 0")
    return number


def _side(value: Any, maximum: int = MAX_SIDE) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= maximum:
        raise ValueError(f"{value!r:.80} is not a size")
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
            return Exactly(_side(width), _side(height))
    raise ValueError(f"{size!r:.80} is not a size")


def _fit_rule(settings: Mapping[str, Any], default: ResizeRule) -> ResizeRule:
    if "size" not in settings:
        return default
    exact = bool(settings.get(EXACT_LONGEST_EDGE, isinstance(default, ExactLongestEdge)))
    size = settings["size"]
    match size:
        case int() | float():
            shortest, longest = size, settings.get("max_size", 1333)
        case {"shortest_edge": shortest}:
            longest = size.get("longest_edge", settings.get("max_size"))
        case {"longest_edge": longest}:
            return longest_edge(_side(longest)) if exact else Within(_side(longest), _side(longest))
        case {"max_height": height, "max_width": width}:
            return Within(_side(width), _side(height))
        case _:
            return _frame(size)
    shortest = _side(shortest)
    if longest in (None, UNLIMITED):
        return ShortestEdge(shortest, None)
    return (ExactLongestEdge if exact else ShortestEdge)(shortest, _side(longest, maximum=UNLIMITED))
