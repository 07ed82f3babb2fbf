"""From a file to named tensors. Nothing in a file is ever executed."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ModelError
from .find import INDEX_SUFFIX, ONNX_SUFFIX, PICKLE_SUFFIXES, hint, shards_of
from .pickles import SAFE_GLOBALS
from .unwrap import arguments_in, weights_in


@dataclass(frozen=True)
class Contents:
    """What a weights file holds that is of use.

    Attributes:
        tensors: by their names in the file.
        arguments: what the training that wrote it was told, where the file keeps that.
    """

    tensors: dict[str, Tensor]
    arguments: Mapping[str, Any] | None = None


def read_weights(path: Path) -> Contents:
    """Read the weights in a `.safetensors` file, in a PyTorch file with restricted unpickling, or in an index's shards.

    Of a training checkpoint, the averaged weights are taken where there are any.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or holds more than plain data.
    """
    if path.name.endswith(INDEX_SUFFIX):
        tensors: dict[str, Tensor] = {}
        for shard in shards_of(path):
            tensors |= read_weights(shard).tensors
        return Contents(tensors)
    if path.suffix == ".safetensors":
        try:
            path.open("rb").close()  # says more of why it cannot
            return Contents(load_file(path))
        except SafetensorError as error:
            raise ModelError(f"{path} is damaged or no safetensors file ({error}); {hint(path)}") from error
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path} is an ONNX file, which predicts and no more; name the model it was made of")
    if path.suffix not in PICKLE_SUFFIXES:
        raise ModelError(f"{path}: weights come as .safetensors or {', '.join(PICKLE_SUFFIXES)}")
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no dictionary of weights")
    found = weights_in(content)
    if not found:
        raise ModelError(f"{path} holds no weights")
    return Contents(found, arguments_in(content))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors alone; see `read_weights`."""
    return read_weights(path).tensors


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"\bGLOBAL\b|unrecognized function|Can only (create|build)", str(error)):
            raise ModelError(
                f"{path} holds more than weights and was refused, since loading it could run foreign code; "
                "ask its author for a .safetensors file"
            ) from error
        raise ModelError(f"{path} is damaged or no PyTorch file; {hint(path)}") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(f"{path} is damaged or no PyTorch file; {hint(path)}") from error
