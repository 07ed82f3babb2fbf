"""A training from its first step to its last, or from where it was stopped."""

import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoints.families import DETR, LWDETR
from ..checkpoints.load import LoadedModel
from ..checkpoints.save import save_model
from ..datasets import Dataset
from ..detector import Detector
from ..errors import TrainingError
from ..evaluation.average_precision import Evaluation, evaluate
from ..files import atomic_file
from ..inference.torch import DTYPES, TorchBackend
from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..models.predictions import Predictions
from ..signals import Interruption
from .config import TrainConfig, sizes_around
from .criterion import DETR_CRITERION, LWDETR_CRITERION, SetCriterion, smooth_l1
from .curves import draw_curves
from .dataset import Batch, Schedule, TrainingDataset, batches, loading
from .distributed import Distributed
from .ema import ModelEma
from .files import CURVES, METRICS, STATE
from .optimizer import optimizer_for, parameters_of, share
from .state import Part, Progress, load_state, save_state, setting_of
from .sync_batch_norm import sync_batch_norms

SAVE_AFTER = 600.0
"""Seconds after which the state of a training is saved within an epoch."""


class TrainingCallback(Protocol):
    """Is told how a training goes."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A step is done, the `step`-th of `steps` in an epoch, all counted from 1."""

    def on_evaluation(self, done: int, of: int) -> None:
        """So many images of the validation are done."""

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


class Training:
    """Everything that changes while a network learns.

    Args:
        model: what to start from; its network is trained in place.
        data: to learn from.
        validation: to measure AP on after each epoch, or None to keep the last weights as the best.
        recipe: how.
        folder: where the best model, `last/`, the metrics and the state are written.
        processes: who else takes part.
        workers: processes that load images.
        watcher: is told how it goes.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Dataset,
        validation: Dataset | None,
        recipe: TrainConfig,
        folder: Path,
        processes: Distributed,
        *,
        workers: int,
        watcher: TrainingCallback,
    ) -> None:
        self._model, self._validation, self._recipe = model, validation, recipe
        self._folder, self._processes, self._workers, self._watcher = folder, processes, workers, watcher
        torch.manual_seed(recipe.seed * 1000 + processes.rank)
        network = model.network.to(processes.device).to(memory_format=torch.channels_last).train()
        self._network = network
        self._groups = network.config.num_groups if isinstance(network, LwDetr) else 1
        self._criterion = _criterion(network, recipe)
        self._average = ModelEma(network, decay=recipe.decay, warm_up=recipe.ema_warmup_steps)
        self._optimizer = optimizer_for(network, recipe.rate, recipe.rates)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "fp16")
        self._every_layer: nn.Module = EveryLayer(network)
        if processes.count > 1:
            sync_batch_norms(network)
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
        self._setting = setting_of(model, data, validation, recipe, processes)
        self._parts: dict[str, Part] = {
            "network": network,
            "average": self._average.network,
            "optimizer": self._optimizer,
            "scaler": self._scaler,
        }
        self._images = TrainingDataset(data.examples, model.preprocessing, recipe.augmentation)
        self._progress = Progress()
        self._interruption = Interruption()
        self._saved = time.monotonic()

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """A line of the metrics file for each finished epoch."""
        return self._progress.records

    def run(self) -> None:
        """Train to the end, or until Ctrl-C or SIGTERM; then the state is saved after the current step.

        An interrupted validation is begun anew by the training that goes on.

        Raises:
            TrainingError: the loss or its gradient is no longer a number, or a loading process was killed.
            ImageError: an image cannot be read.
            OutputError: a file cannot be written.
            KeyboardInterrupt: it was interrupted.
        """
        progress, steps = self._progress, self._schedule.steps
        self._write_metrics()
        draws = self._schedule.onward(progress.epoch, progress.step, self._recipe.epochs)
        pin = self._processes.device.type == "cuda"
        with loading(), self._interruption.listen():
            if progress.step == steps:
                self._finish_epoch()
            for batch in batches(self._images, draws, workers=self._workers, pin=pin):
                losses, due, stop = self._step(batch.to(self._processes.device))
                progress.step += 1
                progress.sums = [total + one for total, one in zip(progress.sums, losses, strict=True)]
                self._watcher.on_step(progress.epoch + 1, progress.step, steps, losses[0])
                last = progress.step == steps
                if due or stop or (last and self._validation):
                    self._save_state()
                if last and not stop:
                    self._finish_epoch()
                    stop = any(self._processes.gathered(self._interruption.signal is not None))
                if stop:
                    self._interruption.reraise()

    def _step(self, batch: Batch) -> tuple[list[float], bool, bool]:
        """Learn from a batch.

        Returns:
            The total loss and the last layer's terms; whether the state is to be saved; whether to stop. All processes
            are given the same: the means of the losses, and if any of them is to save or stop, all are.
        """
        recipe, progress = self._recipe, self._progress
        done = progress.epoch * self._schedule.steps + progress.step
        factor = self._share(done)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        with self._autocast():
            answers = self._every_layer(batch.pixels, batch.mask)
        found = sum(len(target.labels) for target in batch.targets)
        due = time.monotonic() - self._saved > SAVE_AFTER
        mine = torch.tensor([found, due, self._interruption.signal is not None], dtype=torch.float32)
        shared = self._processes.mean(mine.to(self._processes.device, non_blocking=True))
        objects = shared[0].clamp(min=1)
        total, terms = self._criterion(answers, batch.targets, objects=objects, groups=self._groups)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(list(parameters_of(self._optimizer)), recipe.clip)
        # one wait for the device, for all that is asked of it
        told = self._processes.mean(torch.stack([total, *self._last_layer(terms)]).detach())
        *losses, norm, due, stop = torch.stack([*told, norm, *shared[1:]]).tolist()
        # a gradient too large for fp16 is the scaler's business, as long as it has room to scale
        scaling = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        if not all(map(math.isfinite, losses)) or not (scaling or math.isfinite(norm)):
            raise TrainingError(
                f"the loss or its gradient is no longer a number in step {progress.step + 1} of epoch "
                f"{progress.epoch + 1}; try a lower --lr or --precision fp32"
            )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if math.isfinite(norm):
            self._average.update(self._network, done + 1)
        return losses, bool(due), bool(stop)

    def _share(self, step: int) -> float:
        recipe = self._recipe
        return share(step, recipe.epochs * self._schedule.steps, warm_up=recipe.warm_up, decline=recipe.decline)

    def _last_layer(self, terms: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
        return terms[-1 if isinstance(self._network, Detr) else -2]

    def _autocast(self) -> AbstractContextManager[None]:
        if self._recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, DTYPES[self._recipe.precision])

    def _finish_epoch(self) -> None:
        progress = self._progress
        due = (progress.epoch + 1) % self._recipe.validate_every == 0 or progress.epoch + 1 == self._recipe.epochs
        evaluation = self._evaluate() if self._validation and due and self._processes.is_main else None
        total, classes, boxes, giou = (value / self._schedule.steps for value in progress.sums)
        record: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self._schedule.steps,
            "lr": self._recipe.rate * self._share((progress.epoch + 1) * self._schedule.steps - 1),
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
        if self._processes.is_main:
            averaged = replace(self._model, network=self._average.network)
            save_model(averaged, self._folder / "last")
            if best:
                save_model(averaged, self._folder)
            self._write_metrics()
            draw_curves(progress.records, self._folder / CURVES)
            self._watcher.on_epoch(record)
        self._save_state()

    def _evaluate(self) -> Evaluation:
        assert self._validation is not None
        folded = replace(self._model, network=copy.deepcopy(self._average.network))
        backend = TorchBackend(folded, device=str(self._processes.device), precision="fp32")
        rules = self._model.preprocessing
        detector = Detector(self._model.name, [backend], self._model.class_names, rules.resize, rules.resample)
        count = len(self._validation.examples)

        def watched(done: int) -> None:
            self._watcher.on_evaluation(done, count)
            if self._interruption.signal is not None:
                self._interruption.reraise()

        evaluation, _ = evaluate(detector, self._validation, batch_size=backend.batch_size, on_progress=watched)
        return evaluation

    def _save_state(self) -> None:
        self._saved = time.monotonic()
        save_state(self._folder / STATE, self._setting, self._progress, self._parts, self._processes)

    def _write_metrics(self) -> None:
        if self._processes.is_main:
            with atomic_file(self._folder / METRICS) as file:
                file.writelines(json.dumps(line).encode() + b"\n" for line in self._progress.records)

    def resume(self) -> None:
        """Go on where the training in the folder was stopped, as if it had not been.

        Raises:
            TrainingError: there is none, it is damaged, or it was another one.
        """
        self._progress = load_state(self._folder / STATE, self._setting, self._parts, self._processes)


def _criterion(network: Detr | LwDetr, recipe: TrainConfig) -> SetCriterion:
    criterion = DETR_CRITERION if isinstance(network, Detr) else LWDETR_CRITERION
    return replace(criterion, box_loss=smooth_l1) if recipe.box_loss == "smooth_l1" else criterion
