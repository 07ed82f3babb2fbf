"""Finding a model's files: a known name, a repository on the Hugging Face Hub, a folder, or a file."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError, UnknownModelError
from ..files import read_file
from .bundled import bundled
from .download import cache_folder, cached_file, fetch_file
from .hub import HubRepository
from .model_types import ONLY_SUPPORTED, SUPPORTED, UNSUPPORTED
from .names import KNOWN_MODELS, KnownModel, known_model

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Contains the former's settings since transformers 5, for models that process more than images."""
INDEX_SUFFIX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHARDED = tuple(name + INDEX_SUFFIX for name in WEIGHTS)
ONNX_SUFFIX = ".onnx"
PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
FILE_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES, INDEX_SUFFIX, ONNX_SUFFIX)
TRAINER_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Files of a model.

    Attributes:
        name: what the user called the model.
        weights: path of the tensors, or of the index of their shards.
        config: contents of config.json, or None.
        preprocessor: contents of preprocessor_config.json, or of that part of processor_config.json, or None.
        arguments: arguments of the training run that wrote the weights, or None; known once these are read.
    """

    name: str
    weights: Path
    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    arguments: Mapping[str, Any] | None = None


def find(model: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find a model's files; download those that are not in the cache.

    Args:
        model: a known name, `org/name` on the Hub, a folder in the Hub's layout, a weights file, or an ONNX file.
        revision: branch, tag or commit on the Hub.
        offline: use only the cache.

    Raises:
        ModelError: there is no such model, or its files cannot be downloaded or read.
    """
    if (repo := hub_repository(model)) is not None:
        return _from_hub(model, repo, revision, offline)
    known = known_model(model)
    path = bundled(known.name) if known else Path(os.path.expanduser(model))
    if known is None and not (model and os.path.exists(path)):
        if _is_path(model):
            raise ModelError(f"no such file or folder: {model}")
        raise _unknown(model)
    if revision is not None:
        raise ModelError(f"{model} has no revisions: it is not on the Hub")
    if known is not None and known.download is not None:
        return Checkpoint(known.name, fetch_file(known.name, known.download, offline=offline), None, None)
    return _from_folder(path) if path.is_dir() else _from_file(path)


def hub_repository(model: str) -> str | None:
    """Return the repository on the Hub that a model's name stands for, or None for files on disk."""
    known = known_model(model)
    if known is not None:
        return known.repo
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not _is_path(model)
    return model if named and not os.path.exists(os.path.expanduser(model)) else None


def is_downloaded(model: str) -> bool:
    """Tell whether a model's files are downloaded, from the Hub or a URL, unless they are in the cache."""
    known = known_model(model)
    return hub_repository(model) is not None or (known is not None and known.download is not None)


def _is_path(model: str) -> bool:
    return os.path.splitext(model)[1] in FILE_SUFFIXES or model.startswith((".", "/", "~"))


def _unknown(model: str) -> ModelError:
    import difflib

    similar = difflib.get_close_matches(model, [known.name for known in KNOWN_MODELS], n=3)
    if similar:
        return ModelError(f"no model is called {model!r}; did you mean {' or '.join(similar)}?")
    return UnknownModelError(f"no model is called {model!r}")


def _from_folder(folder: Path) -> Checkpoint:
    weights = _weights_in(folder)
    if weights is None:
        advice = _trainer_checkpoints(folder) or f"it needs {' or '.join(WEIGHTS)}"
        raise ModelError(f"{folder} has no weights; {advice}")
    return Checkpoint(folder.resolve().name, weights, _read_config(folder / CONFIG), _read_preprocessor(folder))


def _weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS + SHARDED if (folder / name).is_file()), None)


def _trainer_checkpoints(folder: Path) -> str | None:
    """Name the checkpoints of transformers' Trainer in a folder, if there are any."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-([0-9]{1,18})", path.name)) and _weights_in(path)
    }
    if not numbered:
        return None
    last = numbered[max(numbered)]
    recorded = (_read_json(last / TRAINER_STATE) or {}).get("best_model_checkpoint")
    # the folder may have been moved since
    best = folder / Path(recorded).name if isinstance(recorded, str) else None
    if best == last:
        return f"use its checkpoint {last}, the last and the best"
    if best in numbered.values():
        return f"use one of its checkpoints: {best} is the best, {last} the last"
    return f"use one of its checkpoints: {last} is the last"


def _from_file(path: Path) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"{path} is a pipe or a device, not a file; save the model to a file first")
    if path.suffix.lower() == ONNX_SUFFIX:
        return Checkpoint(path.stem, path, None, None)  # its settings are in the file
    config, preprocessor = _read_json(path.parent / CONFIG), _read_preprocessor(path.parent)
    if config is not None and "model_type" in config:
        _check_type(config, path.parent / CONFIG)
    else:
        config = None  # not a model's
    name = path.absolute().parent.name if path.name.endswith(INDEX_SUFFIX) else path.stem
    return Checkpoint(name, path, config, preprocessor)


def _from_hub(name: str, repo: str, revision: str | None, offline: bool) -> Checkpoint:
    from huggingface_hub import constants

    hub = HubRepository(repo, revision, offline or constants.HF_HUB_OFFLINE)
    config = hub.fetch(CONFIG)
    if config is None:
        raise ModelError(f"{repo} has no {CONFIG}, so it cannot be loaded from the Hub")
    settings = _read_config(config)  # refuses other models before their weights are downloaded
    hub = replace(hub, commit=config.parent.name)
    preprocessor = hub.fetch(PREPROCESSOR, PROCESSOR)
    weights = hub.fetch(*WEIGHTS, *SHARDED)
    if weights is None:
        raise ModelError(f"{repo} has neither {' nor '.join(WEIGHTS)}")
    if weights.name in SHARDED:
        for shard in _shard_names(weights):
            if hub.fetch(shard) is None:
                raise ModelError(f"{repo} has no {shard}, which its {weights.name} names")
    return Checkpoint(name, weights, settings, _read_preprocessor(preprocessor.parent) if preprocessor else None)


def is_cached(known: KnownModel) -> bool:
    """Tell whether the weights of a known model are on this machine: in the cache, or bundled."""
    from huggingface_hub import try_to_load_from_cache

    if known.repo is not None:
        return any(isinstance(try_to_load_from_cache(known.repo, name), str) for name in WEIGHTS + SHARDED)
    return known.download is None or cached_file(known.download).is_file()


def weight_files(weights: Path) -> list[Path]:
    """List the files that contain a model's weights: the shards of an index, else the file itself.

    Raises:
        ModelError: the index is invalid, or a shard is missing.
    """
    if not weights.name.endswith(INDEX_SUFFIX):
        return [weights]
    shards = [weights.parent / name for name in _shard_names(weights)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(f"{weights} names {missing[0]}{more}, which is missing; download it again")
    return shards


def _shard_names(index: Path) -> list[str]:
    tensors = (_read_json(index) or {}).get("weight_map")
    if not isinstance(tensors, dict) or not tensors:
        raise ModelError(f"{index} is not an index of weights: it has no weight_map")
    names = list(dict.fromkeys(tensors.values()))
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise ModelError(f"{index} names {name!r}, which is not a weights file beside it")
    return names


def _read_preprocessor(folder: Path) -> dict[str, Any] | None:
    settings = _read_json(folder / PREPROCESSOR)
    if settings is not None:
        return settings
    path = folder / PROCESSOR
    nested = (_read_json(path) or {}).get("image_processor")
    if nested is not None and not isinstance(nested, dict):
        raise ModelError(f"{path} says image_processor = {nested!r:.80}, which is not an object")
    return nested


def _read_config(path: Path) -> dict[str, Any] | None:
    config = _read_json(path)
    if config is not None:
        _check_type(config, path)
    return config


def _check_type(config: Mapping[str, Any], path: Path) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in SUPPORTED:
        title = UNSUPPORTED.get(model_type) if isinstance(model_type, str) else None
        known = f" ({title})" if title else ""
        raise ModelError(f"{path} describes a model of type {model_type!r:.80}{known}; {ONLY_SUPPORTED}")
    architectures = str(config.get("architectures"))
    if "Segmentation" in architectures:
        kind = "instance" if "Instance" in architectures else "panoptic"
        raise ModelError(f"{path} describes {SUPPORTED[model_type]} for {kind} segmentation; {ONLY_SUPPORTED}")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_file(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}); {download_again(path)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def download_again(path: Path) -> str:
    """Say how to replace a damaged file."""
    if path.is_symlink() or path.parent == cache_folder():  # links in the Hub's cache
        return f"delete {path.resolve()} and load the model again to download it"
    return "download it again"
