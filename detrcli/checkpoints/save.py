"""Saving a network as a folder in the Hub's layout, which this package and `transformers` load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..files import atomic_file
from .families import family_of
from .find import CONFIG, PREPROCESSOR, WEIGHTS
from .load import LoadedModel
from .preprocessing import as_json


def save_model(model: LoadedModel, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json, preprocessor_config.json and, last, model.safetensors.

    Args:
        model: its network must be in its trained form.
        folder: made if it is missing.
        dtype: type of the floating-point weights.

    Raises:
        ModelError: transformers has no such network.
        OutputError: the files cannot be written.
    """
    config = model.network.config
    family = family_of(config)
    settings = family.write_config(config) | {
        "id2label": dict(enumerate(model.class_names)),
        "label2id": {name: label for label, name in enumerate(model.class_names)},
        "dtype": str(dtype).removeprefix("torch."),
    }
    preprocessor = {**family.image_processor, **as_json(model.preprocessing), "format": "coco_detection"}
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in family.hub_layout(config).to_published(model.network.state_dict()).items()
    }
    _write_json(folder / CONFIG, settings)
    _write_json(folder / PREPROCESSOR, preprocessor)
    with atomic_file(folder / WEIGHTS[0]) as file:
        file.write(save(tensors, metadata={"format": "pt"}))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
