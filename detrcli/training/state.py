"""State of a training run, from which it can be resumed."""

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
from ..errors import DamagedStateError, NothingToResumeError, ResumeMismatchError, TrainingError
from ..files import atomic_file
from .config import TrainConfig
from .distributed import Distributed

Settings = dict[str, Any]
RngState = dict[str, Tensor]


class Stateful(Protocol):
    """Object whose state is saved: a network, an optimizer, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore the state."""


@dataclass
class Progress:
    """Progress of a training run.

    Attributes:
        epoch: current epoch, from 0.
        step: steps done in it.
        sums: sums over these steps of the total loss and of the last layer's losses.
        records: line of the metrics file for each finished epoch.
        best: best AP so far.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    records: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf


def run_settings(
    model: LoadedModel, data: Dataset, validation: Dataset | None, config: TrainConfig, processes: Distributed
) -> Settings:
    """Return everything that determines the outcome of a training run; it resumes only with the same settings."""
    trained = [name for name, parameter in model.network.named_parameters() if parameter.requires_grad]
    digest = hashlib.sha256("\n".join(trained).encode()).hexdigest()[:8]
    return {
        **asdict(config),
        "network": f"{type(model.network).__name__} {asdict(model.network.config)}",
        "trained parameters": f"{len(trained)} ({digest})",
        "preprocessing": str(model.preprocessing),
        "classes": list(model.class_names),
        "images": _summary(data),
        "validation images": _summary(validation) if validation else None,
        "processes": processes.world_size,
        "device": processes.device.type,
    }


def save_state(
    path: Path, settings: Settings, progress: Progress, parts: Mapping[str, Stateful], processes: Distributed
) -> None:
    """Save the state of a training run. All processes call this at the same step; the main process writes.

    Raises:
        OutputError: the file cannot be written.
    """
    rng_states = processes.all_gather(_rng_state(processes.device))
    if not processes.is_main:
        return
    state = {
        "settings": json.dumps(settings),
        "progress": vars(progress),
        "rng": rng_states,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    buffer = io.BytesIO()  # PyTorch's own error about a full disk does not say so
    torch.save(state, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path, settings: Settings, parts: Mapping[str, Stateful], processes: Distributed) -> Progress:
    """Restore the state that `save_state` saved, including that of the random number generators.

    Returns:
        Progress of the saved run.

    Raises:
        NothingToResumeError: there is no such file.
        DamagedStateError: it is damaged, or of another version.
        ResumeMismatchError: it belongs to a run with other settings.
        TrainingError: it cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NothingToResumeError(f"nothing to resume: there is no {path}") from error
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from error
    damaged = f"{path} is damaged, or was written by another version"
    with file:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises all kinds
            raise DamagedStateError(damaged) from error
    try:
        _check_same(json.loads(state["settings"]), json.loads(json.dumps(settings)), path)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        _set_rng_state(state["rng"][processes.rank], processes.device)
        return Progress(**state["progress"])
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise DamagedStateError(damaged) from error


def _check_same(before: Settings, now: Settings, path: Path) -> None:
    changes = [f"{name} = {value!r}, not {now.get(name)!r}" for name, value in before.items() if now.get(name) != value]
    if changes:
        raise ResumeMismatchError(f"{path} began with {'; '.join(changes)}")


def _summary(data: Dataset) -> str:
    contents = hashlib.sha256()
    for example in data.examples:
        contents.update(example.path.name.encode("utf-8", "surrogatepass"))
        for values in (example.boxes, example.labels, example.crowd):
            contents.update(values.tobytes())
    return f"{len(data.examples)} ({contents.hexdigest()[:8]})"


def _rng_state(device: torch.device) -> RngState:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_rng_state(states: RngState, device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
