"""Reading named tensors from a file. No code in a file is ever executed."""

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
from .find import INDEX_SUFFIX, ONNX_SUFFIX, PICKLE_SUFFIXES, download_again, weight_files
from .pickles import SAFE_GLOBALS
from .unwrap import training_arguments, unwrap_weights


@dataclass(frozen=True)
class Contents:
    """Contents of a weights file.

    Attributes:
        tensors: by their names in the file.
        arguments: arguments of the training run that wrote it, or None if they are not in it.
    """

    tensors: dict[str, Tensor]
    arguments: Mapping[str, Any] | None = None


def read_weights(path: Path) -> Contents:
    """Read a `.safetensors` file, a PyTorch file with restricted unpickling, or the shards of an index.

    Training checkpoints give their EMA weights if they have any.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or has more than plain data.
    """
    if path.name.endswith(INDEX_SUFFIX):
        shards = [read_weights(shard).tensors for shard in weight_files(path)]
        return Contents({name: tensor for shard in shards for name, tensor in shard.items()})
    if path.suffix == ".safetensors":
        try:
            path.open("rb").close()  # its errors say more
            return Contents(load_file(path))
        except SafetensorError as error:
            raise ModelError(
                f"{path} is damaged or not a safetensors file ({error}); {download_again(path)}"
            ) from error
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path} is an ONNX file, which can only predict; use the model that it was exported from")
    if path.suffix not in PICKLE_SUFFIXES:
        raise ModelError(f"{path} is not a weights file: these are .safetensors or {', '.join(PICKLE_SUFFIXES)}")
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} has no dictionary of weights")
    tensors = unwrap_weights(content)
    if not tensors:
        raise ModelError(f"{path} has no weights")
    return Contents(tensors, training_arguments(content))


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError,
    ) as error:  # fmt: skip
        refused = r"\bGLOBAL\b|unrecognized function|Can only (create|build)"
        if isinstance(error, pickle.UnpicklingError) and re.search(refused, str(error)):
            raise ModelError(
                f"{path} has more than weights and was refused, because loading it could run foreign code; "
                "ask its author for a .safetensors file"
            ) from error
        raise ModelError(f"{path} is damaged or not a PyTorch file; {download_again(path)}") from error
