"""`detr train`: learn to find other objects."""

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.names import DEFAULT_MODEL
from ..errors import DatasetError, SplitError, UsageError
from ..files import lock_directory
from ..host import cores
from ..training.files import STATE
from .console import Console, printable, show_warnings
from .hub import quiet_hub_logging
from .options import (
    ClassNames,
    DatasetPath,
    ImageSize,
    LogJson,
    Model,
    Offline,
    OneDevice,
    Quiet,
    Revision,
    Strict,
    Verbose,
    expand_user,
    load_class_names,
    parse_size,
)
from .packages import require
from .progress import Progress, show_progress

if TYPE_CHECKING:
    from ..datasets import Dataset, Split
    from ..training.loop import Trainer


def train(
    dataset: DatasetPath,
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=expand_user, help="Folder for the model and the metrics.")
    ],
    model: Model = DEFAULT_MODEL,
    scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights; --model names an architecture.")
    ] = False,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--val-data", callback=expand_user, help="Dataset to validate on.  [default: the dataset's own split]"
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Hold out this fraction of the images, such as 0.1, for validation."),
    ] = None,
    val_interval: Annotated[int, typer.Option(min=1, help="Epochs between validations.")] = 1,
    revision: Revision = None,
    class_names: ClassNames = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step and process.")] = 8,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the heads.")] = 1e-4,
    backbone_lr_factor: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Learning rate of the backbone, relative to --lr.  [default: 0.1 DETR, 1.5 LW-DETR, 1 from scratch]",
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Learning-rate decay per ViT block, from last to first.  [default: as published; 1 from scratch]",
        ),
    ] = None,
    component_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="LW-DETR: decay per component (heads, decoder, ViT).  [default: as published; 1 from scratch]",
        ),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="Weight decay of AdamW.  [default: 0.0001; 0.001 for LW-DETR-xlarge]")
    ] = None,
    warmup_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Steps of linear learning-rate warmup.  [default: 100, or a tenth of all if fewer]"),
    ] = None,
    lr_schedule: Annotated[Literal["cosine", "step"], typer.Option(help="Learning-rate schedule.")] = "cosine",
    ema_decay: Annotated[
        float, typer.Option(min=0, max=0.99999, help="Decay of the exponential moving average of the weights.")
    ] = 0.9995,
    box_loss: Annotated[Literal["l1", "smooth_l1"], typer.Option(help="Box regression loss.")] = "l1",
    size: ImageSize = None,
    multi_scale: Annotated[bool, typer.Option(help="Vary the image size from batch to batch.")] = True,
    random_crop: Annotated[bool, typer.Option(help="Randomly crop images, or pad them.")] = True,
    color_jitter: Annotated[
        bool, typer.Option(help="Randomly change brightness, contrast, saturation and hue.")
    ] = True,
    rotate_flip: Annotated[
        bool,
        typer.Option("--rotate-flip", help="Random 90° rotations and flips, for images without a fixed orientation."),
    ] = False,
    device: OneDevice = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Mixed-precision dtype (auto: fastest supported).")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that load images.  [default: by the number of cores]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    strict: Strict = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training run.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
) -> None:
    """Fine-tune a model on labelled images, or train one from scratch.

    OUTPUT gets the best model in the Hub's layout (so that `detr predict --model OUTPUT` takes it), the last one in
    last/, metrics.jsonl and curves.png. `torchrun --nproc-per-node N -m detrcli train …` uses N GPUs. Exit codes: 0 all
    well, 2 wrong usage or a dataset that cannot be used, 130 Ctrl-C, 143 SIGTERM (go on with --resume after either).
    """
    is_main = "LOCAL_RANK" not in os.environ or os.environ.get("RANK") == "0"  # as torchrun numbers its processes
    console = Console(quiet=quiet or not is_main, verbose=verbose, as_json=log_json)
    show_warnings(console)
    if val_fraction is not None and validation is not None:
        raise UsageError("--val-fraction means nothing with --val-data")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise UsageError(f"--val-fraction takes a number above 0 and below 1, not {val_fraction:g}")
    loads = {"--revision": revision, "--offline": offline, "--class-names": class_names}
    if scratch and any(loads.values()):
        raise UsageError(f"{next(filter(loads.get, loads))} means nothing with --from-scratch")
    _check_output(output, dataset, resume=resume)
    require("matplotlib", "pycocotools", "scipy")
    from ..datasets import read_dataset

    data = read_dataset(dataset, "train", strict=strict)
    if val_fraction is None:
        held_out = _validation(data, dataset, validation, console, strict=strict)
    else:
        data, held_out = _held_out(data, dataset, val_fraction, seed, console)
    for problem in (*data.problems, *(held_out.problems if held_out else ())):
        console.info(printable(problem))

    from ..inference.memory import enough_memory
    from ..inference.torch import parse_device, training_precision
    from ..models.detr import Detr
    from ..training.augment import Augmentation
    from ..training.config import TrainConfig
    from ..training.distributed import init_distributed
    from ..training.initial_model import from_scratch, pretrained
    from ..training.loop import Trainer
    from ..training.optimizer import FROM_SCRATCH, fine_tuning_config
    from ..training.sampler import steps_per_epoch

    if scratch:
        start = from_scratch(model, data.classes, size=parse_size(size), seed=seed)
        usual = FROM_SCRATCH
    else:
        quiet_hub_logging(model, console)
        start, known = pretrained(
            model,
            data.classes,
            size=parse_size(size),
            revision=revision,
            offline=offline,
            class_names=load_class_names(class_names),
            seed=seed,
        )
        console.info(printable(f"{start.name} knows {known} of {len(data.classes)} classes by name"))
        usual = fine_tuning_config(start.network)
    if isinstance(start.network, Detr) and (layer_decay, component_decay) != (None, None):
        option = "--component-decay" if layer_decay is None else "--layer-decay"
        raise UsageError(f"{option} is for a ViT; {start.name} has a ResNet, whose rate is --backbone-lr-factor")
    given = {
        "backbone_lr_factor": backbone_lr_factor,
        "layer_decay": layer_decay,
        "component_decay": component_decay,
        "weight_decay": weight_decay,
    }
    rates = replace(usual, **{name: value for name, value in given.items() if value is not None})
    with (
        init_distributed(parse_device(device)) as processes,
        enough_memory(processes.device, "for this training run"),
        lock_directory(output) if processes.is_main else nullcontext(),
        show_progress(console) as progress,
    ):
        steps = epochs * steps_per_epoch(len(data.examples), batch_size * processes.world_size)
        if (warmup_steps or 0) > steps:
            raise UsageError(f"--warmup-steps {warmup_steps} is longer than the training, which has {steps} steps")
        config = TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=rates,
            warmup_steps=min(100, steps // 10) if warmup_steps is None else warmup_steps,
            lr_schedule=lr_schedule,
            ema_decay=ema_decay,
            box_loss=box_loss,
            augmentation=Augmentation(random_crop, color_jitter, rotate_flip),
            multi_scale=multi_scale,
            precision=training_precision(processes.device) if precision == "auto" else precision,
            val_interval=val_interval,
            seed=seed,
        )
        trainer = Trainer(
            start,
            data,
            held_out,
            config,
            output,
            processes,
            workers=_workers() if workers is None else workers,
            callback=_Watcher(console, progress, epochs),
        )
        if resume:
            trainer.resume()
        console.info(
            f"{start.name}, {len(data.classes)} classes, {len(data.examples)} images"
            f"{f', {len(held_out.examples)} to validate' if held_out else ''}, "
            f"on {processes.device} in {config.precision}"
        )
        try:
            trainer.run()
        except (KeyboardInterrupt, SystemExit):
            if os.path.exists(output / STATE):
                console.info("stopped; the same command with --resume goes on")
            raise
    if processes.is_main:
        _conclude(console, trainer, output)


def _validation(
    data: "Dataset", place: Path, other: Path | None, console: Console, *, strict: bool
) -> "Dataset | None":
    from ..datasets import read_dataset
    from ..datasets.annotations import align_classes

    held_out = (
        read_dataset(other, "val", strict=strict) if other is not None else _own_validation(data, place, strict=strict)
    )
    if held_out is None:
        console.info(
            f"{place} has no images to validate on; name some with --val-data, or hold some out with --val-fraction "
            "0.1, to see AP and keep the best weights"
        )
        return None
    held_out = align_classes(held_out, data.classes)
    if not any(len(example.labels) for example in held_out.examples):
        raise DatasetError(
            f"{held_out.name} has no class of {data.name}; name images of the same classes with --val-data"
        )
    learned, judged = _places(data), _places(held_out)
    if shared := len(learned & judged):
        console.info(f"{shared} of {len(judged)} images to validate on are learned from as well: AP will say too much")
    return held_out


def _own_validation(data: "Dataset", place: Path, *, strict: bool) -> "Dataset | None":
    """The validation split of the dataset itself, if it has one, or else its test split."""
    return _own_split(data, place, "val", strict=strict)


def _own_split(data: "Dataset", place: Path, split: "Split", *, strict: bool) -> "Dataset | None":
    """A split of the dataset, if it has one that is not all there is."""
    from ..datasets import read_dataset

    try:
        own = read_dataset(place, split, strict=strict)
    except SplitError:
        return None
    return None if _places(own) == _places(data) else own


def _held_out(
    data: "Dataset", place: Path, fraction: float, seed: int, console: Console
) -> tuple["Dataset", "Dataset"]:
    from ..datasets.holdout import hold_out

    own, test = _own_validation(data, place, strict=False), _own_split(data, place, "test", strict=False)
    if own is not None and (test is None or _places(own) != _places(test)):  # which serves for want of another
        raise UsageError(f"{place} has {len(own.examples)} images of its own to validate on; leave --val-fraction out")
    learned, judged = hold_out(data, fraction, seed=seed)
    console.info(f"{len(judged.examples)} of {len(data.examples)} images held out for validation")
    return learned, judged


def _places(data: "Dataset") -> set[tuple[str, str]]:
    folders = {folder: os.path.realpath(folder) for folder in {one.path.parent for one in data.examples}}
    return {(folders[one.path.parent], one.path.name) for one in data.examples}


def _check_output(output: Path, dataset: Path, *, resume: bool) -> None:
    if resume:
        return
    if os.path.exists(output / STATE):
        raise UsageError(f"{output} holds a training; go on with --resume, or name another --output")
    for name in ("model.safetensors", "config.json"):
        if os.path.exists(output / name):
            raise UsageError(f"{output} holds a model, which would be overwritten; name another --output")
    if os.path.isdir(dataset) and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(dataset)):
        raise UsageError(f"{output} lies in the dataset, which would not be the same afterwards; name another --output")


def _workers() -> int:
    return min(8, max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def _conclude(console: Console, trainer: "Trainer", output: Path) -> None:
    scored = [record for record in trainer.records if "ap" in record]
    if scored:
        best = max(scored, key=lambda record: record["ap"])
        console.info(f"best: AP {100 * best['ap']:.1f}, AP50 {100 * best['ap50']:.1f}, after epoch {best['epoch']}")
    console.info(f"try it: detr predict IMAGE --model {output}")


class _Watcher:
    """Shows how a training goes: a bar for the epoch on a terminal, and a line for each that is done."""

    def __init__(self, console: Console, progress: Progress, epochs: int) -> None:
        self._console, self._progress, self._epochs = console, progress, epochs
        self._began = time.monotonic()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A step is done."""
        self._progress.update(step, steps, f"epoch {epoch} of {self._epochs}", note=f", loss {loss:.3g}")

    def on_evaluation(self, done: int, total: int) -> None:
        """Images of the validation are done."""
        self._progress.update(done, total, "validating")

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done."""
        precision = f", AP {100 * record['ap']:.1f}, AP50 {100 * record['ap50']:.1f}" if "ap" in record else ""
        losses = ", ".join(f"{name} {record[name]:.3f}" for name in ("loss_class", "loss_bbox", "loss_giou"))
        passed = timedelta(seconds=round(time.monotonic() - self._began))
        self._console.info(
            f"epoch {record['epoch']:3} of {self._epochs}: loss {record['loss']:.4g} (last layer: {losses})"
            f"{precision}, {passed}",
            "progress",
            **record,
        )
