"""From config.json and the tensors' shapes to a network's configuration."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..classes import clean_name
from ..errors import ModelError, ModelWarning
from ..models.detr import DetrConfig
from ..models.lwdetr import SIZES, LwDetrConfig
from ..models.vit import EPS
from .dataset_classes import names_for
from .find import Checkpoint

BATCH_NORM_EPS = 1e-5
"""PyTorch's own."""
_GIVE_NAMES = "name them with --class-names FILE (a data.yaml, or text with a name a line)"
_RESNETS = r"(?:microsoft/)?resnet-?(?:18|26|34|50|101|152|200)(?:\.\w+)?"
"""How config.json names the backbones that are run here."""


def detr_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> DetrConfig:
    """The sizes of a DETR: off its tensors (by our names), and what no shape tells off config.json.

    See `dilation_of` for DC5.

    Raises:
        ModelError: tensors are missing, or config.json asks for something that this DETR has not.
    """
    config = checkpoint.config or {}
    nested = _nested(config)
    _check_backbone(checkpoint, tensors)
    heads, dropout = config.get("encoder_attention_heads", 8), config.get("dropout", 0.1)
    _refuse_others(
        "DETR",
        ("activation_function", config.get("activation_function", "relu"), "relu"),
        ("position_embedding_type", config.get("position_embedding_type", "sine"), "sine"),
        ("decoder_attention_heads", config.get("decoder_attention_heads", heads), heads),
        ("backbone_config.hidden_act", nested.get("hidden_act", "relu"), "relu"),
        ("backbone_config.downsample_in_first_stage", nested.get("downsample_in_first_stage", False), False),
        ("backbone_config.downsample_in_bottleneck", nested.get("downsample_in_bottleneck", False), False),
    )
    if not isinstance(dropout, int | float):
        raise ModelError(f"config.json of {checkpoint.name} says dropout = {dropout!r:.80}, which is no number")
    try:
        classes, hidden = tensors["class_head.weight"].shape
        return DetrConfig(
            num_classes=classes - 1,
            num_queries=tensors["object_queries.weight"].shape[0],
            depths=tuple(_count(tensors, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
            block="bottleneck" if "backbone.layer1.0.conv3.weight" in tensors else "basic",
            dilation=dilation_of(checkpoint)[0],
            hidden_dim=hidden,
            heads=_heads(heads, "encoder_attention_heads", hidden),
            feedforward=tensors["encoder.layers.0.feedforward.0.weight"].shape[0],
            encoder_layers=_count(tensors, r"encoder\.layers\.(\d+)\."),
            decoder_layers=_count(tensors, r"decoder\.layers\.(\d+)\."),
            dropout=dropout,
        )
    except KeyError as error:
        raise ModelError(f"{checkpoint.weights} is not a whole DETR: it lacks {error.args[0]}") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"{checkpoint.weights} is no DETR: its tensors have other shapes") from error


def _check_backbone(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Name a backbone that is none of those run here, which config.json does, or the tensors of its first layer."""
    config = checkpoint.config or {}
    nested = _nested(config)
    name = nested.get("backbone") or config.get("backbone")
    if name is None and nested.get("model_type", "resnet") not in ("resnet", "timm_backbone"):
        name = nested["model_type"]
    if name is None and any(key.startswith("backbone.conv1.0.") for key in tensors):
        name = "a ResNet with three convolutions at its start, as timm's resnet50d"
    if name is not None and not re.fullmatch(_RESNETS, str(name)):
        raise ModelError(
            f"{checkpoint.weights} has the backbone {name}; this tool runs DETR with a plain ResNet only, "
            "such as detr-resnet-50, which `detr train` fine-tunes"
        )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def dilation_of(checkpoint: Checkpoint) -> tuple[bool, str]:
    """Whether a DETR is of DC5, which no tensor tells, and what says so.

    That is config.json, or else what the training was told, or else the file's own name, as of the published ones.
    """
    if checkpoint.config is not None:
        nested = _nested(checkpoint.config)
        return bool(checkpoint.config.get("dilation")) or nested.get("output_stride") == 16, "config.json"
    if checkpoint.arguments is not None and "dilation" in checkpoint.arguments:
        return bool(checkpoint.arguments["dilation"]), "the arguments of its training"
    return "dc5" in checkpoint.weights.name.lower(), "the file's name"


def dilation_note(checkpoint: Checkpoint) -> str:
    """A line on whether a DETR is of DC5, and what says so."""
    dilated, source = dilation_of(checkpoint)
    return f"the backbone is {'dilated (DC5)' if dilated else 'not dilated (no DC5)'}, by {source}"


def lwdetr_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> LwDetrConfig:
    """The sizes of an LW-DETR: off its tensors (by our names), what no shape tells off config.json.

    A file without config.json has its number of heads by the paper's rule, and the windows and feature levels of the
    published size that is as deep.

    Raises:
        ModelError: tensors are missing, or config.json asks for something that this LW-DETR has not.
    """
    config = checkpoint.config or {}
    nested = _nested(config)
    _refuse_others(
        "LW-DETR",
        ("activation_function", config.get("activation_function", "silu"), "silu"),
        ("decoder_activation_function", config.get("decoder_activation_function", "relu"), "relu"),
        ("batch_norm_eps", config.get("batch_norm_eps", BATCH_NORM_EPS), BATCH_NORM_EPS),
        ("backbone_config.hidden_act", nested.get("hidden_act", "gelu"), "gelu"),
        ("backbone_config.layer_norm_eps", nested.get("layer_norm_eps", EPS), EPS),
        ("backbone_config.num_windows", nested.get("num_windows", 16), 16),
        ("backbone_config.patch_size", nested.get("patch_size", 16), 16),
        ("backbone_config.qkv_bias", nested.get("qkv_bias", True), True),
    )
    depth = _count(tensors, r"backbone\.blocks\.(\d+)\.")
    windows, outputs = nested.get("window_block_indices"), nested.get("out_indices")
    try:
        width = tensors["backbone.embedding.patches.weight"].shape[0]
        like = min(SIZES.values(), key=lambda size: (size.vit_depth != depth, size.vit_dim != width))
        if like.vit_depth != depth and (windows is None or outputs is None):
            raise ModelError(
                f"{checkpoint.weights} needs a config.json: no published LW-DETR has a ViT of {depth} blocks"
            )
        classes, hidden = tensors["class_head.weight"].shape
        stages = range(_count(tensors, r"projector\.stages\.(\d+)\."))
        groups = _count(tensors, r"proposals\.(\d+)\.")
        self_heads, cross_heads = (
            _heads(config.get(name, hidden // wide), name, hidden)
            for name, wide in (("decoder_self_attention_heads", 32), ("decoder_cross_attention_heads", 16))
        )
        places = tensors["decoder.layers.0.cross_attention.weights.weight"].shape[0]
        return LwDetrConfig(
            num_classes=classes,
            vit_dim=width,
            vit_heads=_heads(nested.get("num_attention_heads", like.vit_heads), "num_attention_heads", width),
            vit_depth=depth,
            window_blocks=like.window_blocks if windows is None else tuple(windows),
            features=like.features if outputs is None else _features(outputs, depth),
            vit_positions=math.isqrt(tensors["backbone.embedding.positions.weight"].shape[1]),
            scales=tuple(_scale_of(tensors, stage) for stage in stages),
            c2f_depth=_count(tensors, r"projector\.stages\.0\.c2f\.bottlenecks\.(\d+)\."),
            hidden_dim=hidden,
            num_queries=tensors["object_queries.weight"].shape[0] // groups,
            num_groups=groups,
            decoder_layers=_count(tensors, r"decoder\.layers\.(\d+)\."),
            self_heads=self_heads,
            cross_heads=cross_heads,
            points=places // (cross_heads * len(stages)),
            feedforward=tensors["decoder.layers.0.feedforward.0.weight"].shape[0],
        )
    except KeyError as error:
        raise ModelError(f"{checkpoint.weights} is not a whole LW-DETR: it lacks {error.args[0]}") from error
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{checkpoint.weights} is no LW-DETR: its config.json and tensors do not agree") from error


def _scale_of(tensors: Mapping[str, Tensor], stage: int) -> float:
    kernels = {
        tensor.shape[2]
        for name, tensor in tensors.items()
        if name.startswith(f"projector.stages.{stage}.resamplers.0.") and tensor.dim() == 4
    }
    if 2 in kernels:
        return 2
    return 0.5 if 3 in kernels else 1


def _heads(value: Any, name: str, width: int) -> int:
    if type(value) is not int or value < 1 or width % value:
        raise ModelError(f"config.json says {name} = {value!r:.80}, which does not divide the width {width}")
    return value


def _features(outputs: Sequence[int], depth: int) -> tuple[int, ...]:
    """The blocks of these numbers; the file counts the stem as 0, and from the last block as -1 on backwards."""
    blocks = tuple(number % (depth + 1) - 1 for number in outputs)
    if -1 in blocks or not all(-depth <= number <= depth for number in outputs):
        raise ModelError(f"config.json says out_indices = {outputs!r:.80}; this tool takes blocks 1 to {depth}")
    return blocks


def _nested(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("backbone_config") or {}
    if not isinstance(nested, dict):
        raise ModelError(f"config.json says backbone_config = {nested!r:.80}, which is no object")
    return nested


def _refuse_others(family: str, *expected: tuple[str, Any, Any]) -> None:
    for name, value, known in expected:
        if value != known:
            raise ModelError(f"config.json says {name} = {value!r:.80}; this tool runs {family} with {known!r} only")


def class_names(checkpoint: Checkpoint, count: int) -> tuple[str, ...]:
    """The name of each class: off config.json, what the training was told, or the dataset of as many classes.

    Warns:
        ModelWarning: no file says the names, or config.json counts its labels from 1.
    """
    names = (checkpoint.config or {}).get("id2label")
    if not isinstance(names, dict):
        known = _trained_names(checkpoint, count) or names_for(count)
        if known is None:
            known = tuple(f"class {label}" for label in range(count))
            _warn(f"{checkpoint.name} does not say what its {count} classes are called; {_GIVE_NAMES}")
        return known
    if str(count) in names and "0" not in names:
        _warn(
            f"id2label in the config.json of {checkpoint.name} counts from 1, but labels from 0: names may be shifted "
            f"by one, and {clean_name(str(names[str(count)]))!r} is never found; {_GIVE_NAMES}"
        )
    return tuple(clean_name(str(names.get(str(label), f"class {label}"))) for label in range(count))


def _trained_names(checkpoint: Checkpoint, count: int) -> tuple[str, ...] | None:
    """The class names that the training was told, if they are as many as the classes."""
    names = (checkpoint.arguments or {}).get("class_names")
    if not isinstance(names, list | tuple) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return tuple(map(clean_name, names))


def _warn(text: str) -> None:
    warnings.warn(text, ModelWarning, stacklevel=4)
