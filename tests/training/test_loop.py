"""Trainings learn, stop, and go on as if they had not been stopped."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detrcli.checkpoints.load import LoadedModel, load_model
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.datasets import Dataset
from detrcli.errors import OutputError, TrainingError
from detrcli.evaluation.average_precision import evaluate
from detrcli.images.resize import Exactly
from detrcli.models.detr import Detr, DetrConfig
from detrcli.training import loop
from detrcli.training.augment import Augmentation
from detrcli.training.config import TrainConfig
from detrcli.training.distributed import Distributed
from detrcli.training.initialize import initialize
from detrcli.training.loop import Trainer
from detrcli.training.optimizer import DETR_FINE_TUNING

from .few import CONFIG, few_scenes, small_detr, small_lwdetr

ALONE = Distributed(0, 1, torch.device("cpu"))


class Silent:
    """Listens, and may stop a training as a kill would."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.losses: list[float] = []
        self.stop_at = stop_at

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        if (epoch, step) == self.stop_at:
            raise KeyboardInterrupt

    def on_evaluation(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, record: Any) -> None:
        pass


def training(
    model: LoadedModel,
    data: Dataset,
    config: TrainConfig,
    folder: Path,
    *,
    validation: Dataset | None = None,
    watcher: Silent | None = None,
    processes: Distributed = ALONE,
    workers: int = 0,
) -> Trainer:
    listens = watcher or Silent()
    return Trainer(model, data, validation, config, folder, processes, workers=workers, callback=listens)


def test_from_random_weights_a_handful_of_images_is_learned(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    often = replace(data, examples=data.examples * 110)
    watcher = Silent()
    config = replace(CONFIG, epochs=4, batch_size=4, lr=2e-3, ema_decay=0.98)
    model = small_lwdetr(data.classes)
    training(model, often, config, tmp_path / "out", validation=data, watcher=watcher).run()
    assert sum(watcher.losses[-20:]) / 20 < watcher.losses[0] / 10
    assert json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[-1])["ap50"] > 0.9


@pytest.mark.parametrize(
    ("make", "stop_at", "workers"),
    [(small_lwdetr, (2, 2), 0), (small_lwdetr, (1, 3), 2), (small_detr, (2, 2), 1), (small_detr, (1, 3), 0)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_resumed_training_is_the_unbroken_one(
    make: type, stop_at: tuple[int, int], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_INTERVAL", -1)
    data = few_scenes(tmp_path / "data", 6)
    config = replace(CONFIG, epochs=2, augmentation=Augmentation())
    whole, first, rest = Silent(), Silent(stop_at), Silent()
    training(make(data.classes), data, config, tmp_path / "whole", validation=data, watcher=whole).run()
    with pytest.raises(KeyboardInterrupt):
        training(make(data.classes), data, config, tmp_path / "parts", validation=data, watcher=first).run()
    resumed = training(
        make(data.classes), data, config, tmp_path / "parts", validation=data, watcher=rest, workers=workers
    )
    resumed.resume()
    resumed.run()
    assert rest.losses == whole.losses[len(whole.losses) - len(rest.losses) :]
    assert len(first.losses) + len(rest.losses) == len(whole.losses) + 1  # the step of the stop was not saved
    for name in ("metrics.jsonl", "model.safetensors", "last/model.safetensors", "config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_best_weights_are_kept_and_the_last_ones_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precisions = iter([0.2, 0.5, 0.1])

    def judged(*args: Any, **kwargs: Any) -> Any:
        evaluation, answers = evaluate(*args, **kwargs)
        return replace(evaluation, ap=next(precisions)), answers

    monkeypatch.setattr(loop, "evaluate", judged)
    data = few_scenes(tmp_path / "data", 4)
    training(small_lwdetr(data.classes), data, replace(CONFIG, epochs=3), tmp_path / "out", validation=data).run()
    training(small_lwdetr(data.classes), data, replace(CONFIG, epochs=3), tmp_path / "all").run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["ap"] for record in records] == [0.2, 0.5, 0.1]
    best, last = load_model(tmp_path / "out"), load_model(tmp_path / "out/last")
    unvalidated = load_model(tmp_path / "all")
    assert torch.equal(last.class_head.weight, unvalidated.class_head.weight)
    assert not torch.equal(best.class_head.weight, last.class_head.weight)
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_weights_are_those_of_their_very_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = few_scenes(tmp_path / "data", 4)
    config = replace(CONFIG, epochs=5, val_interval=2)
    precisions = iter([0.1, 0.7, 0.4])

    def judged(*args: Any, **kwargs: Any) -> Any:
        evaluation, answers = evaluate(*args, **kwargs)
        return replace(evaluation, ap=next(precisions)), answers

    monkeypatch.setattr(loop, "evaluate", judged)
    training(small_lwdetr(data.classes), data, config, tmp_path / "out", validation=data).run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record.get("ap") for record in records] == [None, 0.1, None, 0.7, 0.4]
    short = Silent(stop_at=(5, 1))
    with pytest.raises(KeyboardInterrupt):
        training(small_lwdetr(data.classes), data, config, tmp_path / "short", watcher=short).run()
    best, after_four = load_model(tmp_path / "out").state_dict(), load_model(tmp_path / "short/last").state_dict()
    assert all(torch.equal(best[name], after_four[name]) for name in best)


def interrupting(number: signal.Signals, at: tuple[int, int]) -> Silent:
    class Impatient(Silent):
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            super().on_step(epoch, step, steps, loss)
            if (epoch, step) == at:
                os.kill(os.getpid(), number)

    return Impatient()


@pytest.mark.parametrize(
    ("number", "error", "workers"),
    [(signal.SIGINT, KeyboardInterrupt, 1), (signal.SIGTERM, SystemExit, 1), (signal.SIGTERM, SystemExit, 0)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_interrupted_training_saves_what_it_has(
    number: signal.Signals, error: type[BaseException], workers: int, tmp_path: Path
) -> None:
    data = few_scenes(tmp_path / "data", 8)
    before = signal.getsignal(number)
    whole, first, rest = Silent(), interrupting(number, (1, 2)), Silent()
    training(small_detr(data.classes), data, CONFIG, tmp_path / "whole", watcher=whole).run()
    with pytest.raises(error) as stopped:
        training(small_detr(data.classes), data, CONFIG, tmp_path / "out", watcher=first, workers=workers).run()
    if number is signal.SIGTERM:
        assert stopped.value.code == 143  # type: ignore[attr-defined]
    assert signal.getsignal(number) is before
    resumed = training(small_detr(data.classes), data, CONFIG, tmp_path / "out", watcher=rest)
    resumed.resume()
    resumed.run()
    assert first.losses + rest.losses == whole.losses
    assert 2 <= len(first.losses) <= 3


def test_a_validation_is_interrupted_at_once_and_begun_anew(tmp_path: Path) -> None:
    class Impatient(Silent):
        seen = 0

        def on_evaluation(self, done: int, total: int) -> None:
            self.seen += 1
            os.kill(os.getpid(), signal.SIGTERM)

    data = few_scenes(tmp_path / "data", 4)
    whole, first, rest = Silent(), Impatient(), Silent()
    training(small_detr(data.classes), data, CONFIG, tmp_path / "whole", validation=data, watcher=whole).run()
    with pytest.raises(SystemExit):
        training(small_detr(data.classes), data, CONFIG, tmp_path / "out", validation=data, watcher=first).run()
    assert (first.seen, len(first.losses)) == (1, 2)
    resumed = training(small_detr(data.classes), data, CONFIG, tmp_path / "out", validation=data, watcher=rest)
    resumed.resume()
    resumed.run()
    assert first.losses + rest.losses == whole.losses
    for name in ("metrics.jsonl", "model.safetensors", "last/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    data, other = few_scenes(tmp_path / "data", 2), few_scenes(tmp_path / "other", 3)
    other = replace(other, examples=other.examples[1:])
    out = tmp_path / "out"

    def refused(
        match: str, model: LoadedModel, learned: Dataset, config: TrainConfig, validation: Dataset | None = data
    ) -> None:
        with pytest.raises(TrainingError, match=match):
            training(model, learned, config, out, validation=validation).resume()

    refused("nothing to resume", small_lwdetr(data.classes), data, CONFIG)
    training(small_lwdetr(data.classes), data, CONFIG, out, validation=data).run()
    refused(r"began with lr = 0\.001, not 0\.5", small_lwdetr(data.classes), data, replace(CONFIG, lr=0.5))
    refused(r"began with images = '2 \(\w+\)', not '2 \(\w+\)'", small_lwdetr(data.classes), other, CONFIG)
    refused("began with validation images", small_lwdetr(data.classes), data, CONFIG, validation=other)
    refused("began with validation images", small_lwdetr(data.classes), data, CONFIG, validation=None)
    refused("began with network", small_lwdetr(data.classes, num_queries=9), data, CONFIG)
    refused("began with network", small_lwdetr(data.classes, self_heads=1), data, CONFIG)
    refused("began with network", small_detr(data.classes), data, CONFIG)
    renamed = tuple(name.upper() for name in data.classes)
    refused("began with classes", small_lwdetr(renamed), replace(data, classes=renamed), CONFIG)
    frozen = small_lwdetr(data.classes)
    frozen.network.class_head.requires_grad_(False)
    refused("began with trained parameters", frozen, data, CONFIG)
    larger = small_lwdetr(data.classes)
    refused("began with preprocessing", replace(larger, preprocessing=Preprocessing(Exactly(64, 64))), data, CONFIG)


@pytest.mark.parametrize("part", ["nothing", "half", "settings", "progress", "optimizer"])
def test_a_damaged_state_is_said(part: str, tmp_path: Path) -> None:
    data, out = few_scenes(tmp_path / "data", 2), tmp_path / "out"
    training(small_lwdetr(data.classes), data, CONFIG, out).run()
    path = out / "resume.pt"
    if part in ("nothing", "half"):
        path.write_bytes(path.read_bytes()[: 0 if part == "nothing" else 10_000])
    else:
        state = torch.load(path, weights_only=True)
        (state["parts"] if part == "optimizer" else state).pop(part)
        torch.save(state, path)
    with pytest.raises(TrainingError, match=r"damaged") as caught:
        training(small_lwdetr(data.classes), data, CONFIG, out).resume()
    assert len(str(caught.value).splitlines()) == 1


def test_an_output_that_cannot_be_written_is_found_before_the_first_step(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    watcher = Silent()
    with pytest.raises(OutputError, match="cannot write"):
        training(small_lwdetr(data.classes), data, CONFIG, tmp_path / "file/out", watcher=watcher).run()
    assert watcher.losses == []


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_lwdetr(data.classes)
    model.network.class_head.bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="no longer finite in step 1 of epoch 1"):
        training(model, data, CONFIG, tmp_path / "out").run()


@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_a_batch_may_be_without_objects(make: type, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    full, other = data.examples
    bare = replace(full, boxes=full.boxes[:0], labels=full.labels[:0], areas=full.areas[:0], crowd=full.crowd[:0])
    watcher = Silent()
    config = replace(CONFIG, epochs=1, batch_size=1)
    training(make(data.classes), replace(data, examples=(bare, other)), config, tmp_path / "out", watcher=watcher).run()
    assert len(watcher.losses) == 2


def test_a_gradient_that_is_no_number_stops_it_before_it_does_harm(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_lwdetr(data.classes)
    before = {name: value.clone() for name, value in model.network.state_dict().items() if "running" not in name}
    model.network.class_head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match="no longer finite in step 1 of epoch 1"):
        training(model, data, CONFIG, tmp_path / "out").run()
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if "num_batches" not in name)
    assert not (tmp_path / "out/model.safetensors").exists()


def test_a_gradient_beyond_fp16_is_left_out(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_detr(data.classes)
    gradients = iter([torch.inf, *[1.0] * 9])
    model.network.class_head.weight.register_hook(lambda gradient: gradient * next(gradients))
    watcher = Silent()
    training(model, data, replace(CONFIG, precision="fp16", epochs=3), tmp_path / "out", watcher=watcher).run()
    assert len(watcher.losses) == 3
    assert all(torch.isfinite(value).all() for value in load_model(tmp_path / "out").state_dict().values())


def test_gradients_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.AdamW, *args: Any) -> Any:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    data = few_scenes(tmp_path / "data", 4)
    training(small_lwdetr(data.classes), data, CONFIG, tmp_path / "out").run()
    assert norms == pytest.approx([0.1] * 4, rel=1e-3)


def test_the_metrics_tell_the_heads_learning_rate(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    config = replace(
        CONFIG,
        optimizer=DETR_FINE_TUNING,
        warmup_steps=0,
        lr_schedule="step",
        epochs=3,
    )
    training(small_lwdetr(data.classes), data, config, tmp_path / "out").run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in records] == pytest.approx([1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize(
    "depths", [(3, 4, 6, 3), (3, 4, 23, 3)], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_resnet_without_norms_starts_with_features_of_moderate_size(depths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = Detr(DetrConfig(3, depths=depths, encoder_layers=1, decoder_layers=1))
    initialize(network)
    with torch.inference_mode():
        features = network.backbone(torch.randn(2, 3, 64, 64))
    assert 0.3 < features.std() < 3


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_it_trains_in_half_precision_and_with_smooth_l1(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    watcher = Silent()
    config = replace(CONFIG, precision=precision, box_loss="smooth_l1", multi_scale=True)
    training(make(data.classes), data, config, tmp_path / "out", watcher=watcher).run()
    assert watcher.losses[-1] < watcher.losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_a_gpu_learns_what_the_cpu_does(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    often = replace(data, examples=data.examples * 10)
    here, there = Silent(), Silent()
    config = replace(CONFIG, precision="fp32")
    training(make(data.classes), often, config, tmp_path / "cpu", watcher=here).run()
    gpu = Distributed(0, 1, torch.device("cuda"))
    config = replace(CONFIG, precision=precision)
    training(make(data.classes), often, config, tmp_path / "gpu", validation=data, watcher=there, processes=gpu).run()
    assert there.losses[0] == pytest.approx(here.losses[0], rel=1e-3 if precision == "fp32" else 0.1)
    assert sum(there.losses[-10:]) == pytest.approx(sum(here.losses[-10:]), rel=0.3)
    resumed = training(make(data.classes), often, config, tmp_path / "gpu", validation=data, processes=gpu)
    resumed.resume()
    assert len(resumed.records) == config.epochs
