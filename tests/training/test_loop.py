"""Trainings learn, stop, and go on as if they had not been stopped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detrcli.checkpoints.load import LoadedModel, load_model
from detrcli.datasets import Dataset
from detrcli.errors import TrainingError
from detrcli.evaluation import evaluate
from detrcli.training import loop
from detrcli.training.augment import Augmentation
from detrcli.training.loop import Training
from detrcli.training.processes import Processes
from detrcli.training.recipe import Recipe

from .few import RECIPE, few_scenes, small_detr, small_lwdetr

ALONE = Processes(0, 1, torch.device("cpu"))


class Silent:
    """Listens, and may stop a training as a kill would."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.losses: list[float] = []
        self.stop_at = stop_at

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        if (epoch, step) == self.stop_at:
            raise KeyboardInterrupt

    def on_evaluation(self, done: int, of: int) -> None:
        pass

    def on_epoch(self, record: Any) -> None:
        pass


def training(
    model: LoadedModel,
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    validation: Dataset | None = None,
    watcher: Silent | None = None,
    processes: Processes = ALONE,
) -> Training:
    return Training(model, data, validation, recipe, folder, processes, workers=0, watcher=watcher or Silent())


def test_from_random_weights_a_handful_of_pictures_is_learned(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    often = replace(data, examples=data.examples * 110)
    watcher = Silent()
    recipe = replace(RECIPE, epochs=4, batch_size=4, rate=2e-3, decay=0.98)
    model = small_lwdetr(data.classes)
    training(model, often, recipe, tmp_path / "out", validation=data, watcher=watcher).run()
    assert sum(watcher.losses[-20:]) / 20 < watcher.losses[0] / 10
    assert json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[-1])["ap50"] > 0.9


@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
@pytest.mark.parametrize("stop_at", [(2, 2), (1, 3)], ids=str)
def test_a_resumed_training_is_the_unbroken_one(
    make: type, stop_at: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_AFTER", -1)
    data = few_scenes(tmp_path / "data", 6)
    recipe = replace(RECIPE, epochs=2, augmentation=Augmentation())
    whole, first, rest = Silent(), Silent(stop_at), Silent()
    training(make(data.classes), data, recipe, tmp_path / "whole", validation=data, watcher=whole).run()
    with pytest.raises(KeyboardInterrupt):
        training(make(data.classes), data, recipe, tmp_path / "parts", validation=data, watcher=first).run()
    resumed = training(make(data.classes), data, recipe, tmp_path / "parts", validation=data, watcher=rest)
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
    training(small_lwdetr(data.classes), data, replace(RECIPE, epochs=3), tmp_path / "out", validation=data).run()
    training(small_lwdetr(data.classes), data, replace(RECIPE, epochs=3), tmp_path / "all").run()
    records = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["ap"] for record in records] == [0.2, 0.5, 0.1]
    best, last = load_model(tmp_path / "out"), load_model(tmp_path / "out/last")
    unvalidated = load_model(tmp_path / "all")
    assert torch.equal(last.class_head.weight, unvalidated.class_head.weight)
    assert not torch.equal(best.class_head.weight, last.class_head.weight)
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match="nothing to resume"):
        training(small_lwdetr(data.classes), data, RECIPE, out).resume()
    training(small_lwdetr(data.classes), data, RECIPE, out).run()
    with pytest.raises(TrainingError, match=r"began with rate = 0\.001, not 0\.5"):
        training(small_lwdetr(data.classes), data, replace(RECIPE, rate=0.5), out).resume()
    with pytest.raises(TrainingError, match="began with pictures = 2, not 1"):
        training(small_lwdetr(data.classes), replace(data, examples=data.examples[:1]), RECIPE, out).resume()
    with pytest.raises(TrainingError, match="another model"):
        training(small_lwdetr(data.classes, num_queries=9), data, RECIPE, out).resume()
    (out / "resume.pt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="damaged"):
        training(small_lwdetr(data.classes), data, RECIPE, out).resume()


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    model = small_lwdetr(data.classes)
    model.network.class_head.bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="no longer a number in step 1 of epoch 1"):
        training(model, data, RECIPE, tmp_path / "out").run()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_it_trains_in_half_precision_and_with_smooth_l1(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    watcher = Silent()
    recipe = replace(RECIPE, precision=precision, box_loss="smooth_l1", multi_scale=True)
    training(make(data.classes), data, recipe, tmp_path / "out", watcher=watcher).run()
    assert watcher.losses[-1] < watcher.losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [small_lwdetr, small_detr])
def test_a_gpu_learns_what_the_cpu_does(make: type, precision: Any, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 4)
    often = replace(data, examples=data.examples * 10)
    here, there = Silent(), Silent()
    recipe = replace(RECIPE, precision="fp32")
    training(make(data.classes), often, recipe, tmp_path / "cpu", watcher=here).run()
    gpu = Processes(0, 1, torch.device("cuda"))
    recipe = replace(RECIPE, precision=precision)
    training(make(data.classes), often, recipe, tmp_path / "gpu", validation=data, watcher=there, processes=gpu).run()
    assert there.losses[0] == pytest.approx(here.losses[0], rel=1e-3 if precision == "fp32" else 0.1)
    assert sum(there.losses[-10:]) == pytest.approx(sum(here.losses[-10:]), rel=0.3)
    resumed = training(make(data.classes), often, recipe, tmp_path / "gpu", validation=data, processes=gpu)
    resumed.resume()
    assert len(resumed.records) == recipe.epochs
