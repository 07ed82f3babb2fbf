"""Contents of training batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.datasets import Example
from detrcli.errors import ImageError
from detrcli.images.decode import read_image
from detrcli.images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    Exactly,
    Resample,
    ShortestEdge,
    fit_and_pad,
    resize_image,
)
from detrcli.inference.postprocess import EndToEnd
from detrcli.training.augment import Augmentation
from detrcli.training.dataset import Batch, TrainingDataset, load_batches
from detrcli.training.sampler import Sample, Sampler, multi_scale_rules

from .small import PLAIN, few_scenes, small_detr

RULE = Exactly(64, 64)


def as_lists(given: list[Batch]) -> list[list[object]]:
    return [[batch.pixels.tolist(), [part.tolist() for target in batch.targets for part in target]] for batch in given]


def test_loading_processes_do_not_change_the_batches(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 6)
    images = TrainingDataset(data.examples, small_detr(data.classes).preprocessing, Augmentation())
    draws = Sampler(6, 2, (RULE,), 0).epoch(0)
    state = torch.get_rng_state()
    alone = as_lists(list(load_batches(images, draws, workers=0, pin_memory=False)))
    assert torch.equal(state, torch.get_rng_state())
    assert as_lists(list(load_batches(images, draws, workers=2, pin_memory=False))) == alone
    assert as_lists(list(load_batches(images, draws[1:], workers=0, pin_memory=False))) == alone[1:]


def test_smaller_images_of_a_batch_are_padded(tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 6)
    rule = ShortestEdge(64, None)
    images = TrainingDataset(data.examples, small_detr(data.classes).preprocessing, Augmentation(random_crop=False))
    for batch in load_batches(images, Sampler(6, 3, (rule,), 0).epoch(0), workers=0, pin_memory=False):
        assert batch.mask is not None
        for index, target in enumerate(batch.targets):
            inside = ~batch.mask[index]
            height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
            assert inside.sum() == height * width
            assert min(height, width) == 64
            assert batch.pixels[index][:, batch.mask[index]].eq(0).all()
            assert ((target.boxes >= 0) & (target.boxes <= 1)).all()


def test_images_are_padded_as_the_model_pads_them(tmp_path: Path) -> None:
    """An image twice as wide as high fills the upper half of a square, its objects with it."""
    Image.new("RGB", (40, 20), "white").save(tmp_path / "a.png")
    box = np.array([[10, 5, 30, 20]], np.float32)
    label, flag, area = np.array([0]), np.array([False]), np.array([300.0])
    example = Example(tmp_path / "a.png", 1, 40, 20, boxes=box, labels=label, crowd=flag, areas=area)
    images = TrainingDataset([example], Preprocessing(), PLAIN)
    for rule in multi_scale_rules(fit_and_pad(64, 64), 64):
        (batch,) = load_batches(images, [[Sample(0, 0, rule)]], workers=0, pin_memory=False)
        assert batch.mask is None
        assert batch.pixels.shape == (1, 3, 64, 64)
        assert batch.pixels[..., 32:, :].eq(0).all()
        assert batch.pixels[..., :32, :].gt(1).all()
        assert batch.targets[0].boxes.tolist() == [[0.5, 0.3125, 0.5, 0.375]]
    assert multi_scale_rules(fit_and_pad(256, 256), 64) == (
        fit_and_pad(192, 192),
        fit_and_pad(256, 256),
        fit_and_pad(320, 320),
    )


@pytest.mark.parametrize("resample", [PILLOW_BILINEAR, BilinearSampling()], ids=lambda one: type(one).__name__)
def test_images_are_resized_as_for_inference(resample: Resample, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    rules = Preprocessing(RULE, resample)
    images = TrainingDataset(data.examples, rules, Augmentation(random_crop=False, color_jitter=False))
    module = EndToEnd(torch.nn.Identity(), torch.nn.Identity(), scale=rules.scale, mean=rules.mean, std=rules.std)
    for index, example in enumerate(data.examples):
        pixels = torch.from_numpy(resize_image(read_image(example.path).image, rules.resize, rules.resample).copy())
        (expected,) = module.normalize(pixels[None])
        (batch,) = load_batches(images, [[Sample(index, 0, RULE)]], workers=0, pin_memory=False)
        (seen,) = batch.pixels
        mirrored = min((expected, expected.flip(-1)), key=lambda one: float((one - seen).abs().max()))
        torch.testing.assert_close(seen, mirrored, rtol=0, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_image_is_named(workers: int, tmp_path: Path) -> None:
    data = few_scenes(tmp_path / "data", 2)
    images = TrainingDataset(data.examples, small_detr(data.classes).preprocessing, Augmentation())
    data.examples[0].path.unlink()
    with pytest.raises(ImageError) as caught:
        list(load_batches(images, Sampler(2, 2, (RULE,), 0).epoch(0), workers=workers, pin_memory=False))
    assert str(caught.value) == f"{data.examples[0].path}: no such file or directory"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_too_large_for_memory_is_named(
    error: Exception, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    data = few_scenes(tmp_path / "data", 2)
    images = TrainingDataset(data.examples, small_detr(data.classes).preprocessing, Augmentation())
    monkeypatch.setattr(Image.Image, "resize", fail)
    with pytest.raises(ImageError, match=r"\.jpg: not enough memory to augment and resize it$"):
        list(load_batches(images, Sampler(2, 2, (RULE,), 0).epoch(0), workers=workers, pin_memory=False))
