"""Golden outputs of the original implementations, and networks with the same weights."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detrcli.checkpoints.families import Network
from detrcli.checkpoints.load import load_model
from detrcli.checkpoints.preprocessing import IMAGENET_MEAN, IMAGENET_STD

from . import fill
from .places import DATA, SHARED

CASES = ("single", "padded")
IN_ALL_FORMS = pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("trained", torch.float64),
        ("trained", torch.float32),
        pytest.param("fused", torch.float64, marks=pytest.mark.slow),  # twice as long as in float32
        ("fused", torch.float32),
        ("packed", torch.float32),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
"""Parameters of a test of the outputs: a form of the network and its dtype."""


def smallest_first(models: Sequence[str]) -> list[Any]:
    """Models as parameters of a fixture; all but the first, the smallest, are slow."""
    return [models[0], *(pytest.param(model, marks=pytest.mark.slow) for model in models[1:])]


def _file(model: str) -> Path:
    complete = SHARED / "golden" / f"{model}.npz"
    return complete if complete.exists() else DATA / f"{model}.npz"


def is_present(model: str) -> bool:
    """Tell whether a model has a golden file, complete or as an excerpt."""
    return _file(model).exists()


@cache
def outputs(model: str) -> dict[str, NDArray[Any]]:
    """Read a golden file: the complete one if it is present, else the excerpt kept here."""
    with np.load(_file(model)) as archive:
        return dict(archive)


def original_checkpoint(model: str, folder: Path) -> Path:
    """Write the checkpoint of the golden outputs, in the original layout."""
    weights = fill.state_dict(str(DATA / f"{model}.keys.json"))
    path = folder / f"{model}.pth"
    torch.save({"model": {name: torch.from_numpy(value) for name, value in weights.items()}}, path)
    return path


def original_network(model: str, folder: Path) -> Network:
    """Load the network of that checkpoint."""
    path = original_checkpoint(model, folder)
    network = load_model(path)
    path.unlink()
    return network


def images(model: str, case: str) -> list[NDArray[np.uint8]]:
    """Make the images of a case, (H, W, 3) each."""
    return [fill.image(*(int(value) for value in row)) for row in outputs(model)[f"{case}.image"]]


def batch(images: list[NDArray[np.uint8]], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Normalize images and pad them to the largest; also return the mask of the padding, or None if there is none."""
    height, width = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    pixels = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for index, image in enumerate(images):
        normalized = (image / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        pixels[index, :, : image.shape[0], : image.shape[1]] = torch.from_numpy(normalized.transpose(2, 0, 1))
        mask[index, : image.shape[0], : image.shape[1]] = False
    return pixels.to(dtype), mask if mask.any() else None
