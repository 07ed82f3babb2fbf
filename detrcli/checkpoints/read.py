"""From a file to named tensors. Nothing in a file is ever executed."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ModelError
from .find import ONNX_SUFFIX, cure

PICKLE_SUFFIXES = (".pth", ".pt", ".bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the weights in a `.safetensors` file, or in a PyTorch file with restricted unpickling.

    Of a training checkpoint, the dictionary under the key `ema_model` is taken, or else that under `model`.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or holds more than plain data.
    """
    if path.suffix == ".safetensors":
        try:
            path.open("rb").close()  # says more of why it cannot
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path} is damaged or no safetensors file ({error}); {cure(path)}") from error
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path} is an ONNX file, which predicts and no more; name the model it was made of")
    if path.suffix not in PICKLE_SUFFIXES:
        raise ModelError(f"{path}: weights come as .safetensors or {', '.join(PICKLE_SUFFIXES)}")
    return _tensors_in(_unpickle(path), path)


def _unpickle(path: Path) -> Any:
    try:
        # a training checkpoint keeps its command-line arguments, which are plain data
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"\bGLOBAL\b|unrecognized function|Can only (create|build)", str(error)):
            raise ModelError(
                f"{path} holds more than weights and was refused, since loading it could run foreign code; "
                "ask its author for a .safetensors file"
            ) from error
        raise ModelError(f"{path} is damaged or no PyTorch file; {cure(path)}") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(f"{path} is damaged or no PyTorch file; {cure(path)}") from error


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict):
        # the averaged weights of a training are the ones to use
        content = next((content[key] for key in ("ema_model", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no dictionary of weights")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):  # as it is within a parallel or averaged model
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if not tensors:
        raise ModelError(f"{path} holds no weights")
    return tensors
