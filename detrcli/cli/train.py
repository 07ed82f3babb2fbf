"""`detr train`: train a model on a labeled dataset."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.names import DEFAULT_MODEL
from ..errors import UsageError
from ..files import lock_directory
from ..host import cores
from ..signals import sigterm_as_exception
from ..training.files import STATE
from . import options
from .console import Console, printable, show_warnings
from .loading import quiet_hub_logging
from .packages import require
from .progress import Progress, show_progress

if TYPE_CHECKING:
    from ..checkpoints.load import LoadedModel
    from ..training.distributed import Distributed
    from ..training.loop import Trainer
    from ..training.optimizer import OptimizerConfig
    from ..training.splits import Splits


def train(
    dataset: options.DatasetPath,
    output: Annotated[Path, options.path_option("--output", "-o", metavar="DIR", help="Folder for model and metrics.")],
    model: options.Model = DEFAULT_MODEL,
    scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights; --model names an architecture.")
    ] = False,
    val_data: Annotated[
        Path | None,
        options.path_option(
            metavar="DATASET", help="Dataset to validate on.  [default: the dataset's own val or test split]"
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Hold out this fraction of the images, such as 0.1, for validation."),
    ] = None,
    val_interval: Annotated[int, typer.Option(min=1, metavar="N", help="Epochs between validations.")] = 1,
    revision: options.Revision = None,
    class_names: options.ClassNames = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Number of epochs.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images per step and process.")] = 8,
    lr: Annotated[float, typer.Option(min=0, metavar="LR", help="Learning rate of the heads.")] = 1e-4,
    backbone_lr_factor: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="FACTOR",
            help="Learning rate of the backbone, relative to --lr.  [default: as published; 1 from scratch]",
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="FACTOR",
            help="Learning-rate decay per ViT block, from last to first.  [default: as published; 1 from scratch]",
        ),
    ] = None,
    component_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="FACTOR",
            help="With a ViT: decay per component (heads, decoder, ViT).  [default: as published; 1 from scratch]",
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="DECAY", help="Weight decay of AdamW.  [default: 0.0001; 0.001 for LW-DETR-xlarge]"
        ),
    ] = None,
    warmup_steps: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Steps of linear learning-rate warmup.  [default: 100, or a tenth of all if fewer]"
        ),
    ] = None,
    lr_schedule: Annotated[
        Literal["cosine", "step"], typer.Option(metavar="cosine|step", help="Learning-rate schedule after warmup.")
    ] = "cosine",
    ema_decay: Annotated[
        float,
        typer.Option(
            min=0, max=0.99999, metavar="DECAY", help="Decay of the exponential moving average of the weights."
        ),
    ] = 0.9995,
    box_loss: Annotated[
        Literal["l1", "smooth_l1"], typer.Option(metavar="l1|smooth_l1", help="Box regression loss.")
    ] = "l1",
    size: options.ImageSize = None,
    multi_scale: Annotated[bool, typer.Option(help="Vary the image size from batch to batch.")] = True,
    random_crop: Annotated[bool, typer.Option(help="Randomly crop images, or pad them.")] = True,
    color_jitter: Annotated[
        bool, typer.Option(help="Randomly change brightness, contrast, saturation and hue.")
    ] = True,
    rotate_flip: Annotated[
        bool,
        typer.Option("--rotate-flip", help="Random 90° rotations and flips, for images without a fixed orientation."),
    ] = False,
    device: options.TrainingDevice = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            metavar="PRECISION", help="Mixed-precision dtype: fp32, bf16, fp16 or auto (the fastest supported)."
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Image-loading processes.  [default: the number of cores - 1, at most 8]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Random seed.")] = 0,
    strict: options.Strict = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training run.")] = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_json: options.LogJson = False,
) -> None:
    """Fine-tune a model on a labeled dataset, or train it from scratch.

    DIR gets the best model in the Hub's layout (for `detr predict --model DIR`), the last one in last/,
    metrics.jsonl and curves.png. `torchrun --nproc-per-node N -m detrcli train …` uses N GPUs. After Ctrl-C or SIGTERM,
    the same command with --resume continues.
    """
    is_main = "LOCAL_RANK" not in os.environ or os.environ.get("RANK") == "0"  # as torchrun numbers its processes
    console = show_warnings(Console(quiet=quiet or not is_main, verbose=verbose, as_json=log_json))
    _check_validation(val_data, val_fraction)
    for option, value in {"--revision": revision, "--offline": offline, "--class-names": class_names}.items():
        if scratch and value:
            raise UsageError(f"{option} cannot be combined with --from-scratch")
    if not resume:
        _check_output(output, dataset)
    require("matplotlib", "pycocotools", "scipy")
    data = _read_data(console, dataset, val_data, val_fraction, seed=seed, strict=strict)

    from ..inference.torch import training_precision
    from ..training.augment import Augmentation
    from ..training.config import TrainConfig
    from ..training.loop import Trainer
    from ..training.sampler import steps_per_epoch

    source = {"revision": revision, "offline": offline, "class_names": options.load_class_names(class_names)}
    initial, optimizer = _initial(console, model, data.train.classes, scratch=scratch, size=size, seed=seed, **source)
    optimizer = _override(
        optimizer,
        initial,
        backbone_lr_factor=backbone_lr_factor,
        layer_decay=layer_decay,
        component_decay=component_decay,
        weight_decay=weight_decay,
    )
    with _processes(device, output) as processes, show_progress(console) as progress:
        steps = epochs * steps_per_epoch(len(data.train.examples), batch_size * processes.world_size)
        config = TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            warmup_steps=_warmup_steps(warmup_steps, steps),
            lr_schedule=lr_schedule,
            ema_decay=ema_decay,
            box_loss=box_loss,
            augmentation=Augmentation(random_crop, color_jitter, rotate_flip),
            multi_scale=multi_scale,
            precision=training_precision(processes.device) if precision == "auto" else precision,
            val_interval=val_interval,
            seed=seed,
        )
        callback = _Callback(console, progress, epochs)
        if workers is None:
            workers = min(8, max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
        trainer = Trainer(initial, data.train, data.val, config, output, processes, workers=workers, callback=callback)
        if resume:
            trainer.resume()
        _report_start(console, initial, data, f"on {processes.device} in {config.precision}")
        _run(console, trainer, output)


def _check_validation(val_data: Path | None, val_fraction: float | None) -> None:
    if val_fraction is not None and val_data is not None:
        raise UsageError("--val-fraction cannot be combined with --val-data")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise UsageError(f"--val-fraction takes a number above 0 and below 1, not {val_fraction:g}")


def _check_output(output: Path, dataset: Path) -> None:
    if os.path.exists(output / STATE):
        raise UsageError(f"{output} holds a training run; continue it with --resume, or choose another --output")
    for name in ("model.safetensors", "config.json"):
        if os.path.exists(output / name):
            raise UsageError(f"{output} holds a model, which would be overwritten; choose another --output")
    if os.path.isdir(dataset) and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(dataset)):
        raise UsageError(f"{output} is inside the dataset, which must not change; choose another --output")


def _read_data(
    console: Console, dataset: Path, val_data: Path | None, val_fraction: float | None, *, seed: int, strict: bool
) -> "Splits":
    from ..training.splits import read_splits

    data = read_splits(dataset, val_data=val_data, val_fraction=val_fraction, seed=seed, strict=strict)
    for note in data.notes:
        console.info(printable(note))
    if data.val is None:
        console.info(
            f"{dataset} has no validation images; to measure AP and keep the best weights, name some with --val-data, "
            "or hold some out with --val-fraction 0.1"
        )
    return data


def _initial(
    console: Console, model: str, classes: tuple[str, ...], *, scratch: bool, size: str | None, seed: int, **more: Any
) -> "tuple[LoadedModel, OptimizerConfig]":
    """Return the model that training starts with, and the published optimizer settings for it."""
    from ..training.initial_model import from_scratch, pretrained
    from ..training.optimizer import FROM_SCRATCH, fine_tuning_config

    image_size = options.parse_size(size)
    if scratch:
        return from_scratch(model, classes, size=image_size, seed=seed), FROM_SCRATCH
    quiet_hub_logging(model, console)
    with sigterm_as_exception():
        initial, known = pretrained(model, classes, size=image_size, seed=seed, **more)
    console.info(printable(f"{initial.name} matches {known} of {len(classes)} classes by name"))
    return initial, fine_tuning_config(initial.network)


def _override(optimizer: "OptimizerConfig", initial: "LoadedModel", **given: float | None) -> "OptimizerConfig":
    """Return the optimizer settings with those that the user gave."""
    from ..models.detr import Detr

    for name in ("layer_decay", "component_decay"):
        if given[name] is not None and isinstance(initial.network, Detr):
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} applies to ViT backbones only; {initial.name} has a ResNet, which takes --backbone-lr-factor"
            )
    return replace(optimizer, **{name: value for name, value in given.items() if value is not None})


@contextmanager
def _processes(device: str, output: Path) -> "Iterator[Distributed]":
    """Join the processes of this run, say so plainly where memory runs out, and keep other runs from the folder."""
    from ..inference.memory import enough_memory
    from ..inference.torch import parse_device
    from ..training.distributed import init_distributed

    with (
        init_distributed(parse_device(device)) as processes,
        enough_memory(processes.device, "for this training run"),
        lock_directory(output) if processes.is_main else nullcontext(),
    ):
        yield processes


def _warmup_steps(given: int | None, steps: int) -> int:
    if given is None:
        return min(100, steps // 10)
    if given > steps:
        raise UsageError(f"--warmup-steps {given} is longer than the training run of {steps} steps")
    return given


def _report_start(console: Console, initial: "LoadedModel", data: "Splits", where: str) -> None:
    validation = f", {len(data.val.examples)} to validate" if data.val else ""
    console.info(
        f"{initial.name}, {len(data.train.classes)} classes, {len(data.train.examples)} images{validation}, {where}"
    )


def _run(console: Console, trainer: "Trainer", output: Path) -> None:
    try:
        trainer.run()
    except (KeyboardInterrupt, SystemExit):
        if os.path.exists(output / STATE):
            console.info("stopped; the same command with --resume continues")
        raise
    validated = [record for record in trainer.records if "ap" in record]
    if validated:
        best = max(validated, key=lambda record: record["ap"])
        console.info(f"best: AP {100 * best['ap']:.1f}, AP50 {100 * best['ap50']:.1f}, after epoch {best['epoch']}")
    console.info(f"try it: detr predict IMAGE --model {output}")


class _Callback:
    """Report of a training run: progress within an epoch, and a line for each epoch."""

    def __init__(self, console: Console, progress: Progress, epochs: int) -> None:
        self._console, self._progress, self._epochs = console, progress, epochs
        self._start = monotonic()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._progress.update(step, steps, f"epoch {epoch} of {self._epochs}", note=f", loss {loss:.3g}")

    def on_evaluation(self, done: int, total: int) -> None:
        self._progress.update(done, total, "validating")

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        losses = ", ".join(f"{name} {record[name]:.3f}" for name in ("loss_class", "loss_bbox", "loss_giou"))
        precision = f", AP {100 * record['ap']:.1f}, AP50 {100 * record['ap50']:.1f}" if "ap" in record else ""
        elapsed = timedelta(seconds=round(monotonic() - self._start))
        text = f"epoch {record['epoch']:3} of {self._epochs}: loss {record['loss']:.4g} (last layer: {losses})"
        self._console.info(f"{text}{precision}, {elapsed}", "progress", **record)
