"""From a model's name to files on disk: a known name, a repository on the Hugging Face Hub, a folder, or a file."""

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import read_file
from .bundled import bundled
from .model_types import UNSUPPORTED
from .names import DEMO_MODEL, KNOWN_MODELS, known_model

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Holds the former since transformers 5, if there is more to process than images."""
INDEX_SUFFIX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHARDED = tuple(name + INDEX_SUFFIX for name in WEIGHTS)
ONNX_SUFFIX = ".onnx"
PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
FILE_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES, INDEX_SUFFIX, ONNX_SUFFIX)
TRAINER_STATE = "trainer_state.json"
MODEL_TYPES = {"detr": "DETR", "lw_detr": "LW-DETR"}
"""What config.json calls the models that this package runs → what people call them."""
_DEMO = f"; --model {DEMO_MODEL} works offline"


@dataclass(frozen=True)
class Checkpoint:
    """A model's files.

    Attributes:
        name: what the user called the model.
        weights: path of the tensors, or of the index of the files that share them.
        config: contents of config.json, or None.
        preprocessor: contents of preprocessor_config.json, or of that part of processor_config.json, or None.
        arguments: what the training that wrote the weights was told, or None; known once they are read.
    """

    name: str
    weights: Path
    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    arguments: Mapping[str, Any] | None = None


def find(model: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find a model's files, downloading what is not in the Hub's cache.

    Args:
        model: a known name, `org/name` on the Hub, a folder in the Hub's layout, a weights file, or an ONNX
            file.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the cache.

    Raises:
        ModelError: with what to do next.
    """
    if (repo := hub_repository(model)) is not None:
        return _from_hub(model, repo, revision, offline)
    known = known_model(model)
    if known is not None:
        if revision is not None:
            raise ModelError(f"--revision goes with a model on the Hub; {model} comes with this package")
        return _from_folder(bundled(known.name))
    path = Path(os.path.expanduser(model))
    if model and os.path.exists(path):
        if revision is not None:
            raise ModelError(f"--revision goes with a model on the Hub; {model} is here on disk")
        return _from_folder(path) if path.is_dir() else _from_file(path)
    if _is_path(model):
        raise ModelError(f"no such file or folder: {model}")
    raise ModelError(f"no model is called {model!r}; {_suggestion(model)}")


def hub_repository(model: str) -> str | None:
    """The repository on the Hub that a model's name stands for, or None where it is looked for on disk alone."""
    known = known_model(model)
    if known is not None:
        return known.repo
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not _is_path(model)
    return model if named and not os.path.exists(os.path.expanduser(model)) else None


def _is_path(model: str) -> bool:
    return os.path.splitext(model)[1] in FILE_SUFFIXES or model.startswith((".", "/", "~"))


def _suggestion(model: str) -> str:
    import difflib

    names = [known.name for known in KNOWN_MODELS]
    near = difflib.get_close_matches(model, names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`detr models` lists the known ones; org/name on the Hub, a folder or a weights file will do as well"


def _from_folder(folder: Path) -> Checkpoint:
    weights = _weights_in(folder)
    if weights is None:
        advice = _checkpoints_in(folder) or f"it needs {' or '.join(WEIGHTS)}"
        raise ModelError(f"{folder} holds no weights; {advice}")
    return Checkpoint(folder.resolve().name, weights, _read_config(folder / CONFIG), _preprocessor_in(folder))


def _preprocessor_in(folder: Path) -> dict[str, Any] | None:
    own = _read_json(folder / PREPROCESSOR)
    return own if own is not None else _image_part(folder / PROCESSOR)


def _image_part(path: Path) -> dict[str, Any] | None:
    """What processor_config.json says of images, or None."""
    part = (_read_json(path) or {}).get("image_processor")
    if part is not None and not isinstance(part, dict):
        raise ModelError(f"{path} says image_processor = {part!r:.80}, which is no object")
    return part


def _weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS + SHARDED if (folder / name).is_file()), None)


def _checkpoints_in(folder: Path) -> str | None:
    """Which of a Trainer's checkpoints in a folder to name in its place, if there are any."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-([0-9]{1,18})", path.name)) and _weights_in(path)
    }
    if not numbered:
        return None
    last = numbered[max(numbered)]
    noted = (_read_json(last / TRAINER_STATE) or {}).get("best_model_checkpoint")
    # a folder may have been moved since
    best = folder / Path(noted).name if isinstance(noted, str) else None
    if best == last:
        return f"name its checkpoint {last}, the last and the best"
    if best in numbered.values():
        return f"name one of its checkpoints: {best} is the best, {last} the last"
    return f"name one of its checkpoints: {last} is the last"


def shard_names(index: Path) -> list[str]:
    """The names of the files that share a model's tensors, and lie beside their index.

    Raises:
        ModelError: it is no such index, or names files elsewhere.
    """
    tensors = (_read_json(index) or {}).get("weight_map")
    if not isinstance(tensors, dict) or not tensors:
        raise ModelError(f"{index} is no index of weights: it has no weight_map")
    names = list(dict.fromkeys(tensors.values()))
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise ModelError(f"{index} names {name!r}, which is no weights file beside it")
    return names


def weight_files(weights: Path) -> list[Path]:
    """The files whose contents a model's weights are: the shards where it is an index, else itself.

    Raises:
        ModelError: see `shards_of`.
    """
    return shards_of(weights) if weights.name.endswith(INDEX_SUFFIX) else [weights]


def shards_of(index: Path) -> list[Path]:
    """The files beside an index that share a model's tensors.

    Raises:
        ModelError: it is no such index, or they are not there.
    """
    names = shard_names(index)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(f"{index} names {missing[0]}{more}, which is not there; get it again")
    return [index.parent / name for name in names]


def _from_file(path: Path) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"{path} is a pipe or a device, not a file; save the model to a file first")
    if path.suffix.lower() == ONNX_SUFFIX:
        return Checkpoint(path.stem, path, None, None)  # it holds everything itself
    config, preprocessor = _read_json(path.parent / CONFIG), _preprocessor_in(path.parent)
    if config is not None and "model_type" in config:
        _check_type(config, path.parent / CONFIG)
    else:
        config = None  # or of something else that lies there
    name = path.absolute().parent.name if path.name.endswith(INDEX_SUFFIX) else path.stem
    return Checkpoint(name, path, config, preprocessor)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_file(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON file ({error}); {hint(path)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


def hint(path: Path) -> str:
    """What a user can do about a damaged file of a model."""
    if path.is_symlink():  # as in the Hub's cache
        return f"delete {path.resolve()} and run this again to download it anew"
    return "get it again"


def _read_config(path: Path) -> dict[str, Any] | None:
    config = _read_json(path)
    if config is not None:
        _check_type(config, path)
    return config


def _check_type(config: Mapping[str, Any], path: Path) -> None:
    kind = config.get("model_type")
    runs = " and ".join(MODEL_TYPES.values())
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        title = UNSUPPORTED.get(kind) if isinstance(kind, str) else None
        known = f" ({title})" if title else ""
        raise ModelError(f"{path} describes a model of type {kind!r:.80}{known}; this tool runs {runs}")
    if "Segmentation" in str(config.get("architectures")):
        raise ModelError(f"{path} describes {MODEL_TYPES[kind]} for panoptic segmentation; this tool runs {runs}")


def _from_hub(name: str, repo: str, revision: str | None, offline: bool) -> Checkpoint:
    from huggingface_hub import constants

    hub = _Repository(repo, revision, offline or constants.HF_HUB_OFFLINE)
    config = hub.fetch(CONFIG)
    if config is None:
        raise ModelError(f"{repo} has no {CONFIG}, so it is no model that can be loaded from the Hub")
    description = _read_config(config)
    hub = replace(hub, commit=config.parent.name)
    preprocessor = hub.fetch(PREPROCESSOR, PROCESSOR)
    weights = hub.fetch(*WEIGHTS, *SHARDED)
    if weights is None:
        raise ModelError(f"{repo} has neither {' nor '.join(WEIGHTS)}")
    if weights.name in SHARDED:
        for shard in shard_names(weights):
            if hub.fetch(shard) is None:
                raise ModelError(f"{repo} has no {shard}, which its {weights.name} names")
    return Checkpoint(name, weights, description, _preprocessor_in(preprocessor.parent) if preprocessor else None)


@dataclass(frozen=True)
class _Repository:
    """A repository on the Hub; once its commit is known, all files come from that one."""

    repo: str
    revision: str | None
    offline: bool
    commit: str | None = None

    def fetch(self, *names: str) -> Path | None:
        """Path in the cache of the first of these files that the repository has, or None where it has none of them."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        unreachable: Exception | None = None
        for name in names:
            if self.commit and try_to_load_from_cache(self.repo, name, revision=self.commit) is _CACHED_NO_EXIST:
                continue
            try:
                return self._load(name)
            except LocalEntryNotFoundError as error:
                unreachable = unreachable or error
            except EntryNotFoundError:
                continue
            except ModelError:
                raise
            except Exception as error:  # beside its own errors, the client lets those of its transports through
                raise ModelError(self._explain(error)) from error
        if unreachable is not None:
            raise ModelError(self._explain(unreachable)) from unreachable
        return None

    def _load(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError

        from .hub_responses import check_responses

        revision = self.commit or self.revision
        if not self.offline:
            check_responses()
            return Path(hf_hub_download(self.repo, name, revision=revision))
        cached = try_to_load_from_cache(self.repo, name, revision=revision)  # the other one may open a connection yet
        if not isinstance(cached, str):
            raise LocalEntryNotFoundError(f"{name} is not in the cache")
        return Path(cached)

    def _explain(self, error: Exception) -> str:
        """Say in plain words why a download failed."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        at = f"{self.repo} at revision {self.revision}" if self.revision else self.repo
        match error:
            case LocalEntryNotFoundError() if self.offline:
                return f"{at} is not in the cache; run once without --offline (and HF_HUB_OFFLINE){_DEMO}"
            case LocalEntryNotFoundError(__cause__=HfHubHTTPError() as cause):
                return f"the Hub answered with an error for {at} ({_first_line(cause)}); try again later"
            case LocalEntryNotFoundError():
                return (
                    f"the Hub cannot be reached and {at} is not in the cache; check the network, or name a local "
                    f"folder{_DEMO}"
                )
            case GatedRepoError():
                return f"{self.repo} is gated: accept its terms on its Hub page, then run `hf auth login`"
            case RepositoryNotFoundError():
                return f"the Hub has no model {self.repo}, or it is private: check the spelling, or run `hf auth login`"
            case RevisionNotFoundError():
                revision = self.commit or self.revision
                return f"{self.repo} has no revision {revision!r}: look at the branches and tags on its Hub page"
            case HFValidationError():
                return f"{self.repo!r} cannot be the name of a model on the Hub"
            case HfHubHTTPError():
                return f"the Hub answered with an error for {at} ({_first_line(error)}); try again later"
            case OSError() if error.errno == errno.ENOSPC:
                return (
                    f"the disk is full: {at} could not be downloaded; free some space, or set HF_HOME to another disk"
                )
            case PermissionError():
                return f"the Hub's cache cannot be written ({error.filename}); set HF_HOME to a folder of yours"
            case _:
                return f"the download of {at} failed ({_first_line(error)}); try again"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def is_cached(repo: str) -> bool:
    """Whether the weights of a repository lie in the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repo, name), str) for name in WEIGHTS + SHARDED)
