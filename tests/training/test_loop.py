"""Training runs learn, stop, and resume exactly where they stopped."""

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
from detrcli.training import loop
from detrcli.training.augment import Augmentation
from detrcli.training.config import TrainConfig
from detrcli.training.distributed import Distributed
from detrcli.training.loop import Trainer
from detrcli.training.optimizer import DETR_FINE_TUNING

from .small import CONFIG, few_scenes, small_detr, small_lwdetr, small_rfdetr, small_table_transformer

SINGLE = Distributed(0, 1, torch.device("cpu"))


class Recorder:
    """Recorder of losses that may stop a run as a kill would."""

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


def trainer(
    model: LoadedModel,
    data: Dataset,
    config: TrainConfig,
    folder: Path,
    *,
    validation: Dataset | None = None,
    callback: Recorder | None = None,
    processes: Distributed = SINGLE,
    workers: int = 0,
) -> Trainer:
    recorder = callback or Recorder()
    return Trainer(model, data, validation, config, folder, processes, workers=workers, callback=recorder)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of such short runs."""
    monkeypatch.setattr(loop, "plot_curves", lambda *_: None)


@pytest.mark.slow  # 440 steps
@pytest.mark.parametrize("make", [small_lwdetr, small_rfdetr])
def test_a_few_images_are_learned_from_random_weights(make: type, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    repeated = replace(data, examples=data.examples * 110)
    callback = Recorder()
    config = replace(CONFIG, epochs=4, batch_size=4, lr=2e-3, ema_decay=0.98)
    trainer(make(data.classes), repeated, config, tmp_path / "out", validation=data, callback=callback).run()
    assert sum(callback.losses[-20:]) / 20 < callback.losses[0] / 10
    assert json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[-1])["ap50"] > 0.9


@pytest.mark.parametrize(
    ("make", "stop_at", "workers"),
    [
        (small_lwdetr, (1, 3), 2),
        (small_detr, (2, 2), 0),
        (small_rfdetr, (2, 1), 0),
        pytest.param(small_lwdetr, (2, 2), 0, marks=pytest.mark.slow),  # each has its like among those above
        pytest.param(small_detr, (1, 3), 1, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    make: type, stop_at: tuple[int, int], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_INTERVAL", -1)
    data = few_scenes(tmp_path / "data", 6)
    config = replace(CONFIG, epochs=2, augmentation=Augmentation())
    unbroken, first, rest = Recorder(), Recorder(stop_at), Recorder()
    trainer(make(data.classes), data, config, tmp_path / "unbroken", validation=data, callback=unbroken).run()
    with pytest.raises(KeyboardInterrupt):
        trainer(make(data.classes), data, config, tmp_path / "resumed", validation=data, callback=first).run()
    resumed = trainer(
        make(data.classes), data, config, tmp_path / "resumed", validation=data, callback=rest, workers=workers
    )
    resumed.resume()
    resumed.run()
    assert rest.losses == unbroken.losses[len(unbroken.losses) - len(rest.losses) :]
    assert len(first.losses) + len(rest.losses) == len(unbroken.losses) + 1  # the step of the stop was not saved
    for name in ("metrics.jsonl", "model.safetensors", "last/model.safetensors", "config.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_the_best_and_the_last_weights_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precisions = iter([0.2, 0.5, 0.1])

    def stub_evaluate(*args: Any, **kwargs: Any) -> Any:
        evaluation, predictions = evaluate(*args, **kwargs)
        return replace(evaluation, ap=next(precisions)), predictions

    monkeypatch.setattr(loop, "evaluate", stub_evaluate)
    data = few_scenes(tmp_path / "data", 4)
    trainer(small_lwdetr(data.classes), data, replace(CONFIG, epochs=3), tmp_path / "out", validation=data).run()
    trainer(small_lwdetr(data.classes), data, replace(CONFIG, epochs=3), tmp_path / "all").run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["ap"] for record in records] == [0.2, 0.5, 0.1]
    best, last = load_model(tmp_path / "out"), load_model(tmp_path / "out/last")
    unvalidated = load_model(tmp_path / "all")
    assert torch.equal(last.class_head.weight, unvalidated.class_head.weight)
    assert not torch.equal(best.class_head.weight, last.class_head.weight)


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = few_scenes(tmp_path / "data", 4)
    config = replace(CONFIG, epochs=5, val_interval=2)
    precisions = iter([0.1, 0.7, 0.4])

    def stub_evaluate(*args: Any, **kwargs: Any) -> Any:
        evaluation, predictions = evaluate(*args, **kwargs)
        return replace(evaluation, ap=next(precisions)), predictions

    monkeypatch.setattr(loop, "evaluate", stub_evaluate)
    trainer(small_lwdetr(data.classes), data, config, tmp_path / "out", validation=data).run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record.get("ap") for record in records] == [None, 0.1, None, 0.7, 0.4]
    short = Recorder(stop_at=(5, 1))
    with pytest.raises(KeyboardInterrupt):
        trainer(small_lwdetr(data.classes), data, config, tmp_path / "short", callback=short).run()
    best, after_four = load_model(tmp_path / "out").state_dict(), load_model(tmp_path / "short/last").state_dict()
    assert all(torch.equal(best[name], after_four[name]) for name in best)


def interrupting(number: signal.Signals, at: tuple[int, int]) -> Recorder:
    class Interrupting(Recorder):
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            super().on_step(epoch, step, steps, loss)
            if (epoch, step) == at:
                os.kill(os.getpid(), number)

    return Interrupting()


@pytest.mark.parametrize(
    ("number", "error", "workers"),
    [(signal.SIGINT, KeyboardInterrupt, 1), (signal.SIGTERM, SystemExit, 0)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_interrupted_run_saves_its_state(
    number: signal.Signals, error: type[BaseException], workers: int, tmp_path: Path
) -> None:
    data = few_scenes(tmp_path / "data", 8)
    before = signal.getsignal(number)
    unbroken, first, rest = Recorder(), interrupting(number, (1, 2)), Recorder()
    trainer(small_detr(data.classes), data, CONFIG, tmp_path / "unbroken", callback=unbroken).run()
    with pytest.raises(error) as stopped:
        trainer(small_detr(data.classes), data, CONFIG, tmp_path / "out", callback=first, workers=workers).run()
    if number is signal.SIGTERM:
        assert stopped.value.code == 143  # type: ignore[attr-defined]
    assert signal.getsignal(number) is before
    resumed = trainer(small_detr(data.classes), data, CONFIG, tmp_path / "out", callback=rest)
    resumed.resume()
    resumed.run()
    assert first.losses + rest.losses == unbroken.losses
    assert 2 <= len(first.losses) <= 3


def test_an_interrupted_validation_is_repeated(tmp_path: Path) -> None:
    class Interrupting(Recorder):
        seen = 0

        def on_evaluation(self, done: int, total: int) -> None:
            self.seen += 1
            os.kill(os.getpid(), signal.SIGTERM)

    data = few_scenes(tmp_path / "data", 4)
    unbroken, first, rest = Recorder(), Interrupting(), Recorder()
    trainer(small_detr(data.classes), data, CONFIG, tmp_path / "unbroken", validation=data, callback=unbroken).run()
    with pytest.raises(SystemExit):
        trainer(small_detr(data.classes), data, CONFIG, tmp_path / "out", validation=data, callback=first).run()
    assert (first.seen, len(first.losses)) == (1, 2)
    resumed = trainer(small_detr(data.classes), data, CONFIG, tmp_path / "out", validation=data, callback=rest)
    resumed.resume()
    resumed.run()
    assert first.losses + rest.losses == unbroken.losses
    for name in ("metrics.jsonl", "model.safetensors", "last/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_a_run_with_other_settings_is_not_resumed(tmp_path: Path) -> None:
    data, other = few_scenes(tmp_path / "data", 2), few_scenes(tmp_path / "other", 3)
    other = replace(other, examples=other.examples[1:])
    out = tmp_path / "out"

    def refused(
        match: str, model: LoadedModel, learned: Dataset, config: TrainConfig, validation: Dataset | None = data
    ) -> None:
        with pytest.raises(TrainingError, match=match):
            trainer(model, learned, config, out, validation=validation).resume()

    refused("nothing to resume", small_lwdetr(data.classes), data, CONFIG)
    trainer(small_lwdetr(data.classes), data, CONFIG, out, validation=data).run()
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
def test_a_damaged_state_is_reported(part: str, tmp_path: Path) -> None:
    data, out = few_scenes(tmp_path / "data", 2), tmp_path / "out"
    trainer(small_lwdetr(data.classes), data, CONFIG, out).run()
    path = out / "resume.pt"
    if part in ("nothing", "half"):
        path.write_bytes(path.read_bytes()[: 0 if part == "nothing" else 10_000])
    else:
        state = torch.load(path, weights_only=True)
        (state["parts"] if part == "optimizer" else state).pop(part)
        torch.save(state, path)
    with pytest.raises(TrainingError, match=r"damaged") as caught:
        trainer(small_lwdetr(data.classes), data, CONFIG, out).resume()
    assert len(str(caught.value).splitlines()) == 1


def test_an_unwritable_output_is_reported_before_the_first_step(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    callback = Recorder()
    with pytest.raises(OutputError, match="cannot write"):
        trainer(small_lwdetr(data.classes), data, CONFIG, tmp_path / "file/out", callback=callback).run()
    assert callback.losses == []


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_lwdetr(data.classes)
    model.network.class_head.bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="no longer finite in step 1 of epoch 1"):
        trainer(model, data, CONFIG, tmp_path / "out").run()


@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_a_batch_without_objects(make: type, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    full, other = data.examples
    bare = replace(full, boxes=full.boxes[:0], labels=full.labels[:0], areas=full.areas[:0], crowd=full.crowd[:0])
    callback = Recorder()
    config = replace(CONFIG, epochs=1, batch_size=1)
    trainer(
        make(data.classes), replace(data, examples=(bare, other)), config, tmp_path / "out", callback=callback
    ).run()
    assert len(callback.losses) == 2


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_lwdetr(data.classes)
    before = {name: value.clone() for name, value in model.network.state_dict().items() if "running" not in name}
    model.network.class_head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match="no longer finite in step 1 of epoch 1"):
        trainer(model, data, CONFIG, tmp_path / "out").run()
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if "num_batches" not in name)
    assert not (tmp_path / "out/model.safetensors").exists()


def test_a_step_whose_gradient_overflows_fp16_is_skipped(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_detr(data.classes)
    gradients = iter([torch.inf, *[1.0] * 9])
    model.network.class_head.weight.register_hook(lambda gradient: gradient * next(gradients))
    callback = Recorder()
    trainer(model, data, replace(CONFIG, precision="fp16", epochs=3), tmp_path / "out", callback=callback).run()
    assert len(callback.losses) == 3
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
    trainer(small_lwdetr(data.classes), data, CONFIG, tmp_path / "out").run()
    assert norms == pytest.approx([0.1] * 4, rel=1e-3)


def test_the_metrics_hold_the_learning_rate_of_the_heads(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    config = replace(
        CONFIG,
        optimizer=DETR_FINE_TUNING,
        warmup_steps=0,
        lr_schedule="step",
        epochs=3,
    )
    trainer(small_lwdetr(data.classes), data, config, tmp_path / "out").run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in records] == pytest.approx([1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (small_lwdetr, "bf16"),
        (small_lwdetr, "fp32"),
        (small_detr, "bf16"),
        (small_detr, "fp32"),
        (small_table_transformer, "bf16"),
    ],
)
def test_mixed_precision_and_smooth_l1(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    repeated = replace(data, examples=data.examples * 3)
    callback = Recorder()
    config = replace(CONFIG, precision=precision, box_loss="smooth_l1", multi_scale=True)
    trainer(make(data.classes), repeated, config, tmp_path / "out", callback=callback).run()
    assert sum(callback.losses[-4:]) < sum(callback.losses[:4])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_a_gpu_learns_like_the_cpu(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    repeated = replace(data, examples=data.examples * 10)
    here, there = Recorder(), Recorder()
    config = replace(CONFIG, precision="fp32")
    trainer(make(data.classes), repeated, config, tmp_path / "cpu", callback=here).run()
    cuda = Distributed(0, 1, torch.device("cuda"))
    config = replace(CONFIG, precision=precision)
    trainer(
        make(data.classes), repeated, config, tmp_path / "gpu", validation=data, callback=there, processes=cuda
    ).run()
    assert there.losses[0] == pytest.approx(here.losses[0], rel=1e-3 if precision == "fp32" else 0.1)
    assert sum(there.losses[-10:]) == pytest.approx(sum(here.losses[-10:]), rel=0.3)
    resumed = trainer(make(data.classes), repeated, config, tmp_path / "gpu", validation=data, processes=cuda)
    resumed.resume()
    assert len(resumed.records) == config.epochs
