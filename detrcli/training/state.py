"""What a training needs to go on where it was stopped, in one file."""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..checkpoints.load import LoadedModel
from ..datasets import Dataset
from ..errors import TrainingError
from ..files import atomic_file
from .config import TrainConfig
from .distributed import Distributed

Setting = dict[str, Any]
Random = dict[str, Tensor]


class Part(Protocol):
    """Something whose state is saved: a network, an optimizer, a scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state."""


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: the current one, from 0.
        step: steps done in it.
        sums: of the total loss and of the last layer's terms, over these steps.
        records: a line of the metrics file for each finished epoch.
        best: the best AP so far.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    records: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf


def setting_of(
    model: LoadedModel, data: Dataset, validation: Dataset | None, recipe: TrainConfig, processes: Distributed
) -> Setting:
    """All that decides what becomes of a training. It can go on only with the same."""
    learning = [name for name, parameter in model.network.named_parameters() if parameter.requires_grad]
    return {
        **asdict(recipe),
        "network": f"{type(model.network).__name__} {asdict(model.network.config)}",
        "learning parameters": f"{len(learning)} ({_digest(learning)})",
        "preprocessing": str(model.preprocessing),
        "classes": list(model.class_names),
        "images": _described(data),
        "images to validate": _described(validation) if validation else None,
        "processes": processes.count,
        "device": processes.device.type,
    }


def save_state(
    path: Path, setting: Setting, progress: Progress, parts: Mapping[str, Part], processes: Distributed
) -> None:
    """Write the state of a training. All processes call this at the same step; the first one writes.

    Raises:
        OutputError: the file cannot be written.
    """
    random = processes.gathered(_random_state(processes.device))
    if not processes.is_main:
        return
    state = {
        "setting": json.dumps(setting),
        "progress": vars(progress),
        "random": random,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    whole = io.BytesIO()  # PyTorch itself says little of a full disk
    torch.save(state, whole)
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def load_state(path: Path, setting: Setting, parts: Mapping[str, Part], processes: Distributed) -> Progress:
    """Give every part, and the random numbers, the state in which `save_state` left them.

    Returns:
        How far the training has come.

    Raises:
        TrainingError: there is no such file, it is damaged, or it is of another training.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise TrainingError(f"nothing to resume: there is no {path}; leave --resume out to begin") from error
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes it raise
            raise _damaged(path) from error
    try:
        _check_same(json.loads(state["setting"]), json.loads(json.dumps(setting)), path)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        _set_random_state(state["random"][processes.rank], processes.device)
        return Progress(**state["progress"])
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> TrainingError:
    return TrainingError(
        f"{path} is damaged, or of another version, and cannot be resumed; "
        f"begin anew with another --output: --model {path.parent / 'last'} starts from the last epoch's weights"
    )


def _check_same(before: Setting, now: Setting, path: Path) -> None:
    different = [
        f"{name} = {value!r}, not {now.get(name)!r}" for name, value in before.items() if now.get(name) != value
    ]
    if different:
        raise TrainingError(
            f"{path} began with {'; '.join(different)}; resume with the model, the data and the options it began with"
        )


def _described(data: Dataset) -> str:
    contents = hashlib.sha256()
    for example in data.examples:
        contents.update(example.path.name.encode("utf-8", "surrogatepass"))
        for values in (example.boxes, example.labels, example.crowd):
            contents.update(values.tobytes())
    return f"{len(data.examples)} ({contents.hexdigest()[:8]})"


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]


def _random_state(device: torch.device) -> Random:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_state(states: Random, device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
