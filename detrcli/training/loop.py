"""Training loop."""

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

from ..checkpoints.families import family_of
from ..checkpoints.load import LoadedModel
from ..checkpoints.save import save_model
from ..datasets import Dataset
from ..detector import Detector
from ..errors import DivergedError
from ..evaluation.average_precision import Evaluation, evaluate
from ..files import atomic_file
from ..inference.torch import DTYPES, TorchBackend
from ..models.boxes import Predictions
from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..signals import Interruption
from .config import TrainConfig
from .criterion import Losses, SetCriterion, criterion_for, smooth_l1
from .curves import plot_curves
from .dataset import Batch, TrainingDataset, killed_loader_as_error, load_batches
from .distributed import Distributed
from .ema import ModelEma
from .files import CURVES, METRICS, STATE
from .optimizer import build_optimizer, lr_factor
from .sampler import Sampler, multi_scale_rules
from .state import Progress, Stateful, load_state, run_settings, save_state
from .sync_batch_norm import sync_batch_norms

SAVE_INTERVAL = 600.0
"""Seconds after which the state is saved within an epoch."""


class TrainingCallback(Protocol):
    """Receiver of progress reports."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Report a step of an epoch, the `step`-th of `steps`, counted from 1."""

    def on_evaluation(self, done: int, total: int) -> None:
        """Report the number of validation images done."""

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        """Report an epoch by its line of the metrics file."""


class EveryLayer(nn.Module):
    """Network whose forward returns the predictions of all layers, as the losses need them."""

    def __init__(self, network: Detr | LwDetr) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, mask: Tensor | None) -> list[Predictions]:
        """Return the predictions of every decoder layer, and then of the proposals if there are any."""
        if isinstance(self.network, Detr):
            return self.network.every_layer(pixels, mask)
        layers, proposals = self.network.every_layer(pixels)
        return [*layers, proposals]


class Trainer:
    """Training run.

    Args:
        model: initial model; its network is trained in place.
        data: dataset to train on.
        validation: dataset to validate on after each epoch; without one, the last weights are saved as the best.
        config: settings.
        folder: output folder for the best model, `last/`, the metrics and the state.
        processes: processes of the run.
        workers: number of image-loading processes.
        callback: receiver of progress reports.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Dataset,
        validation: Dataset | None,
        config: TrainConfig,
        folder: Path,
        processes: Distributed,
        *,
        workers: int,
        callback: TrainingCallback,
    ) -> None:
        self._model, self._validation, self._config = model, validation, config
        self._folder, self._processes, self._workers, self._callback = folder, processes, workers, callback
        torch.manual_seed(config.seed * 1000 + processes.rank)
        network = model.network.to(processes.device).to(memory_format=torch.channels_last).train()
        self._network = network
        self._groups = network.config.num_groups if isinstance(network, LwDetr) else 1
        self._criterion = _criterion(network, config)
        self._ema = ModelEma(network, decay=config.ema_decay, warmup_steps=config.ema_warmup_steps)
        self._optimizer = build_optimizer(network, config.lr, config.optimizer)
        self._base_lrs = [group["lr"] for group in self._optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16")
        self._every_layer: nn.Module = EveryLayer(network)
        if processes.world_size > 1:
            sync_batch_norms(network)
            self._every_layer = DistributedDataParallel(self._every_layer)
        stride = family_of(network.config).stride(network.config)
        rule = model.preprocessing.resize
        rules = multi_scale_rules(rule, stride) if config.multi_scale else (rule,)
        rank, world_size = processes.rank, processes.world_size
        self._sampler = Sampler(len(data.examples), config.batch_size, rules, config.seed, rank, world_size)
        self._settings = run_settings(model, data, validation, config, processes)
        self._parts: dict[str, Stateful] = {
            "network": network,
            "ema": self._ema.network,
            "optimizer": self._optimizer,
            "scaler": self._scaler,
        }
        self._dataset = TrainingDataset(data.examples, model.preprocessing, config.augmentation)
        self._progress = Progress()
        self._interruption = Interruption()
        self._last_save = time.monotonic()

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """Line of the metrics file for each finished epoch."""
        return self._progress.records

    def resume(self) -> None:
        """Continue the run in the folder exactly where it stopped.

        Raises:
            TrainingError: there is none, it is damaged, or it had other settings.
        """
        self._progress = load_state(self._folder / STATE, self._settings, self._parts, self._processes)

    def run(self) -> None:
        """Train to the end, or until Ctrl-C or SIGTERM; the state is saved after the current step.

        A run that is interrupted during validation repeats the validation when it is resumed.

        Raises:
            DivergedError: the loss or its gradient is no longer finite.
            LoaderKilledError: an image-loading process was killed.
            ImageError: an image cannot be read.
            OutputError: a file cannot be written.
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: SIGTERM was received.
        """
        progress, steps = self._progress, self._sampler.steps
        self._write_metrics()
        samples = self._sampler.batches(progress.epoch, progress.step, self._config.epochs)
        pin_memory = self._processes.device.type == "cuda"
        with killed_loader_as_error(), self._interruption.listen():
            if progress.step == steps:
                self._finish_epoch()
            for batch in load_batches(self._dataset, samples, workers=self._workers, pin_memory=pin_memory):
                losses, save, stop = self._step(batch.to(self._processes.device))
                progress.step += 1
                progress.sums = [total + loss for total, loss in zip(progress.sums, losses, strict=True)]
                self._callback.on_step(progress.epoch + 1, progress.step, steps, losses[0])
                last = progress.step == steps
                if save or stop or (last and self._validation):
                    self._save_state()
                if last and not stop:
                    self._finish_epoch()
                    stop = any(self._processes.all_gather(self._interruption.signal is not None))
                if stop:
                    self._interruption.reraise()

    def _step(self, batch: Batch) -> tuple[list[float], bool, bool]:
        """Train on a batch; return the total and the last layer's losses, and whether to save the state and to stop.

        They are the same in all processes: losses are averaged, and if one process is to save or stop, all do.
        """
        config, progress = self._config, self._progress
        step = progress.epoch * self._sampler.steps + progress.step
        factor = self._lr_factor(step)
        for group, lr in zip(self._optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr * factor
        with self._autocast():
            predictions = self._every_layer(batch.pixels, batch.mask)
        objects = sum(len(target.labels) for target in batch.targets)
        save_due = time.monotonic() - self._last_save > SAVE_INTERVAL
        local = torch.tensor([objects, save_due, self._interruption.signal is not None], dtype=torch.float32)
        mean = self._processes.mean(local.to(self._processes.device, non_blocking=True))
        num_objects = mean[0].clamp(min=1)
        total, losses = self._criterion(predictions, batch.targets, num_objects=num_objects, groups=self._groups)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.unscale_(self._optimizer)
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_grad)
        last_layer = losses[-1 if isinstance(self._network, Detr) else -2]
        mean_losses = self._processes.mean(torch.stack([total, *last_layer]).detach())
        *values, norm, save, stop = torch.stack([*mean_losses, norm, *mean[1:]]).tolist()  # the only synchronization
        # a gradient that overflows fp16 is handled by the scaler as long as it can lower its scale
        scaler_handles = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        if not all(map(math.isfinite, values)) or not (scaler_handles or math.isfinite(norm)):
            raise DivergedError(
                f"the loss or its gradient is no longer finite in step {progress.step + 1} of epoch "
                f"{progress.epoch + 1}"
            )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if math.isfinite(norm):
            self._ema.update(self._network, step + 1)
        return values, bool(save), bool(stop)

    def _lr_factor(self, step: int) -> float:
        config = self._config
        steps = config.epochs * self._sampler.steps
        return lr_factor(step, steps, warmup_steps=config.warmup_steps, schedule=config.lr_schedule)

    def _autocast(self) -> AbstractContextManager[None]:
        if self._config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, DTYPES[self._config.precision])

    def _finish_epoch(self) -> None:
        """Validate if due, and save the models, the metrics and the state."""
        progress, config = self._progress, self._config
        epoch = progress.epoch + 1
        due = epoch % config.val_interval == 0 or epoch == config.epochs
        evaluation = self._evaluate() if self._validation and due and self._processes.is_main else None
        total, *losses = (value / self._sampler.steps for value in progress.sums)
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": epoch * self._sampler.steps,
            "lr": config.lr * self._lr_factor(epoch * self._sampler.steps - 1),
            "loss": total,
            **dict(zip(Losses._fields, losses, strict=True)),
        }
        if evaluation:
            record |= {"ap": evaluation.ap, "ap50": evaluation.ap50, "ap75": evaluation.ap75}
        progress.records.append(record)
        best = self._validation is None or (evaluation is not None and evaluation.ap > progress.best)
        if evaluation and best:
            progress.best = evaluation.ap
        progress.epoch, progress.step, progress.sums = epoch, 0, [0.0] * 4
        if self._processes.is_main:
            averaged = replace(self._model, network=self._ema.network)
            save_model(averaged, self._folder / "last")
            if best:
                save_model(averaged, self._folder)
            self._write_metrics()
            plot_curves(progress.records, self._folder / CURVES)
            self._callback.on_epoch(record)
        self._save_state()

    def _evaluate(self) -> Evaluation:
        assert self._validation is not None
        model = replace(self._model, network=copy.deepcopy(self._ema.network))  # the backend folds it in place
        backend = TorchBackend(model, device=str(self._processes.device), precision="fp32")
        preprocessing = model.preprocessing
        detector = Detector(model.name, [backend], model.class_names, preprocessing.resize, preprocessing.resample)
        count = len(self._validation.examples)

        def on_progress(done: int) -> None:
            self._callback.on_evaluation(done, count)
            if self._interruption.signal is not None:
                self._interruption.reraise()

        evaluation, _ = evaluate(detector, self._validation, batch_size=backend.batch_size, on_progress=on_progress)
        return evaluation

    def _save_state(self) -> None:
        self._last_save = time.monotonic()
        save_state(self._folder / STATE, self._settings, self._progress, self._parts, self._processes)

    def _write_metrics(self) -> None:
        if self._processes.is_main:
            with atomic_file(self._folder / METRICS) as file:
                file.writelines(json.dumps(line).encode() + b"\n" for line in self._progress.records)


def _criterion(network: Detr | LwDetr, config: TrainConfig) -> SetCriterion:
    criterion = criterion_for(network.config)
    return replace(criterion, box_loss=smooth_l1) if config.box_loss == "smooth_l1" else criterion
