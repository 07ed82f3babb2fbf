"""A training from its first step to its last, or from where it was stopped."""

import copy
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..backends.torch import DTYPES, TorchBackend, is_out_of_memory
from ..checkpoints.families import DETR, LWDETR
from ..checkpoints.load import LoadedModel
from ..checkpoints.save import save_model
from ..datasets import Dataset
from ..detector import Detector
from ..errors import DeviceError, TrainingError
from ..evaluation import Evaluation, evaluate
from ..files import atomic_file
from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..models.predictions import Predictions
from .average import Average
from .criterion import DETR_CRITERION, LWDETR_CRITERION, SetCriterion, smooth_l1
from .curves import draw_curves
from .loader import Batch, Pictures, Schedule, batches
from .optimizer import optimizer_for, parameters_of, share
from .processes import Processes
from .recipe import Recipe, sizes_around

STATE = "resume.pt"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
AVERAGE_WARM_UP = 2000
"""Steps in which the average of the weights slows down to what the recipe says."""
SAVE_AFTER = 600.0
"""Seconds after which the state of a training is saved within an epoch."""


class Watcher(Protocol):
    """Is told how a training goes."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A step is done, the `step`-th of `steps` in an epoch, all counted from 1."""

    def on_evaluation(self, done: int, of: int) -> None:
        """So many pictures of the validation are done."""

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done; the record is its line in the metrics file."""


class EveryLayer(nn.Module):
    """A network whose forward gives all that the losses are taken of."""

    def __init__(self, network: Detr | LwDetr) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, mask: Tensor | None) -> list[Predictions]:
        """The answers of every decoder layer, and of the proposals if there are any."""
        if isinstance(self.network, Detr):
            return self.network.every_layer(pixels, mask)
        layers, proposals = self.network.every_layer(pixels)
        return [*layers, proposals]


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

    epoch: int
    step: int
    sums: list[float]
    records: list[dict[str, Any]]
    best: float


class Training:
    """Everything that changes while a network learns.

    Args:
        model: what to start from; its network is trained in place.
        data: to learn from.
        validation: to measure AP on after each epoch, or None to keep the last weights as the best.
        recipe: how.
        folder: where the best model, `last/`, the metrics and the state are written.
        processes: who else takes part.
        workers: processes that load pictures.
        watcher: is told how it goes.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Dataset,
        validation: Dataset | None,
        recipe: Recipe,
        folder: Path,
        processes: Processes,
        *,
        workers: int,
        watcher: Watcher,
    ) -> None:
        self._model, self._validation, self._recipe = model, validation, recipe
        self._folder, self._processes, self._workers, self._watcher = folder, processes, workers, watcher
        torch.manual_seed(recipe.seed * 1000 + processes.rank)
        network = model.network.to(processes.device).train()
        self._network = network
        self._groups = network.config.num_groups if isinstance(network, LwDetr) else 1
        self._criterion = _criterion(network, recipe)
        self._average = Average(network, decay=recipe.decay, warm_up=AVERAGE_WARM_UP)
        self._optimizer = optimizer_for(network, recipe.rate, recipe.rates)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "fp16")
        self._every_layer: nn.Module = EveryLayer(network)
        if processes.count > 1:
            self._every_layer = DistributedDataParallel(self._every_layer)
        stride = (DETR if isinstance(network, Detr) else LWDETR).stride
        rule = model.preprocessing.resize
        self._schedule = Schedule(
            len(data.examples),
            recipe.batch_size,
            sizes_around(rule, stride) if recipe.multi_scale else (rule,),
            recipe.seed,
            processes.rank,
            processes.count,
        )
        self._setting: dict[str, Any] = json.loads(
            json.dumps(
                asdict(recipe)
                | {
                    "pictures": len(data.examples),
                    "classes": data.classes,
                    "size": str(rule),
                    "processes": processes.count,
                }
            )
        )
        self._pictures = Pictures(data.examples, model.preprocessing, recipe.augmentation)
        self._progress = Progress(0, 0, [0.0] * 4, [], -math.inf)
        self._saved = time.monotonic()

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """A line of the metrics file for each finished epoch."""
        return self._progress.records

    def run(self) -> None:
        """Train to the end.

        Raises:
            TrainingError: the loss is no longer a number.
            ImageError: a picture cannot be read.
            OutputError: a file cannot be written.
            DeviceError: the device's memory is too small.
        """
        try:
            while self._progress.epoch < self._recipe.epochs:
                self._run_epoch()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"the memory of {self._processes.device} is too small to train so; use a smaller --batch-size or --size"
            ) from error

    def _run_epoch(self) -> None:
        progress, steps = self._progress, self._schedule.steps
        self._network.train()
        draws = self._schedule.epoch(progress.epoch)[progress.step :]
        pin = self._processes.device.type == "cuda"
        for batch in batches(self._pictures, draws, workers=self._workers, pin=pin):
            losses = self._step(batch.to(self._processes.device))
            progress.step += 1
            progress.sums = [total + one for total, one in zip(progress.sums, losses, strict=True)]
            self._watcher.on_step(progress.epoch + 1, progress.step, steps, losses[0])
            if time.monotonic() - self._saved > SAVE_AFTER and progress.step < steps:
                self._save_state()
        self._finish_epoch()

    def _step(self, batch: Batch) -> list[float]:
        recipe, progress = self._recipe, self._progress
        done = progress.epoch * self._schedule.steps + progress.step
        factor = share(done, recipe.epochs * self._schedule.steps, warm_up=recipe.warm_up, decline=recipe.decline)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        with self._autocast():
            answers = self._every_layer(batch.pixels, batch.mask)
        found = sum(len(target.labels) for target in batch.targets)
        objects = self._processes.mean(torch.tensor(float(found), device=self._processes.device)).clamp(min=1)
        total, terms = self._criterion(answers, batch.targets, objects=objects, groups=self._groups)
        losses = [float(part) for part in (total.detach(), *(part.detach() for part in self._last_layer(terms)))]
        if not all(map(math.isfinite, losses)):
            raise TrainingError(
                f"the loss is no longer a number in step {progress.step + 1} of epoch {progress.epoch + 1}; "
                "try a lower --lr or --precision fp32"
            )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(list(parameters_of(self._optimizer)), recipe.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.follow(self._network, done + 1)
        return losses

    def _last_layer(self, terms: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
        return terms[-1 if isinstance(self._network, Detr) else -2]

    def _autocast(self) -> AbstractContextManager[None]:
        if self._recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, DTYPES[self._recipe.precision])

    def _finish_epoch(self) -> None:
        progress = self._progress
        due = (progress.epoch + 1) % self._recipe.validate_every == 0 or progress.epoch + 1 == self._recipe.epochs
        evaluation = self._evaluate() if self._validation and due and self._processes.leads else None
        total, classes, boxes, giou = (value / self._schedule.steps for value in progress.sums)
        record: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self._schedule.steps,
            "lr": self._optimizer.param_groups[-1]["lr"],
            "loss": total,
            "classes": classes,
            "boxes": boxes,
            "giou": giou,
        }
        if evaluation:
            record |= {"ap": evaluation.ap, "ap50": evaluation.ap50, "ap75": evaluation.ap75}
        progress.records.append(record)
        best = self._validation is None or (evaluation is not None and evaluation.ap > progress.best)
        if evaluation and best:
            progress.best = evaluation.ap
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, [0.0] * 4
        if self._processes.leads:
            averaged = replace(self._model, network=self._average.network)
            save_model(averaged, self._folder / "last")
            if best:
                save_model(averaged, self._folder)
            with atomic_file(self._folder / METRICS) as file:
                file.writelines(json.dumps(line).encode() + b"\n" for line in progress.records)
            draw_curves(progress.records, self._folder / CURVES)
            self._watcher.on_epoch(record)
        self._save_state()

    def _evaluate(self) -> Evaluation:
        assert self._validation is not None
        folded = replace(self._model, network=copy.deepcopy(self._average.network))
        backend = TorchBackend(folded, device=str(self._processes.device), precision="fp32")
        rules = self._model.preprocessing
        detector = Detector(self._model.name, backend, self._model.class_names, rules.resize, rules.resample)
        count = len(self._validation.examples)
        evaluation, _ = evaluate(
            detector, self._validation, on_progress=lambda done: self._watcher.on_evaluation(done, count)
        )
        return evaluation

    def _save_state(self) -> None:
        """Write what `resume` needs: each process its own, since each has random numbers of its own."""
        self._saved = time.monotonic()
        state = {
            "setting": json.dumps(self._setting),
            "progress": vars(self._progress),
            "network": self._network.state_dict(),
            "average": self._average.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self._processes.device.type == "cuda" else None,
        }
        whole = io.BytesIO()  # PyTorch itself says little of a full disk
        torch.save(state, whole)
        with atomic_file(self._state_file) as file:
            file.write(whole.getbuffer())
        self._processes.wait()

    @property
    def _state_file(self) -> Path:
        return self._folder / (STATE if self._processes.leads else f"resume-{self._processes.rank}.pt")

    def resume(self) -> None:
        """Go on where the training in the folder was stopped, as if it had not been.

        Raises:
            TrainingError: there is none, or it was another one.
        """
        path = self._state_file
        if not path.exists():
            raise TrainingError(f"nothing to resume: there is no {path}; leave --resume out to begin")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise TrainingError(f"{path} is damaged and cannot be resumed; begin anew without --resume") from error
        _check_same(json.loads(state["setting"]), self._setting, path)
        try:
            self._network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise TrainingError(
                f"{path} is of another model or other classes; give the command it began with"
            ) from error
        self._average.network.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])
        self._progress = Progress(**state["progress"])


def _check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    different = [
        f"{name} = {value!r}, not {now.get(name)!r}" for name, value in before.items() if now.get(name) != value
    ]
    if different:
        raise TrainingError(f"{path} began with {'; '.join(different)}; resume with the options it began with")


def _criterion(network: Detr | LwDetr, recipe: Recipe) -> SetCriterion:
    criterion = DETR_CRITERION if isinstance(network, Detr) else LWDETR_CRITERION
    return replace(criterion, box_loss=smooth_l1) if recipe.box_loss == "smooth_l1" else criterion
