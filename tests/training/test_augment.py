"""Augmentation moves boxes and pixels alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.training.augment import Augmentation, make_target, normalize, to_tensor, transform_input

COLORS = ((255, 0, 0), (0, 255, 0))
BOXES = torch.tensor([[12.0, 20.0, 60.0, 50.0], [70.0, 8.0, 110.0, 76.0]])


def painted() -> Image.Image:
    pixels = np.zeros((96, 128, 3), np.uint8)
    for color, (left, top, right, bottom) in zip(COLORS, BOXES.int().tolist(), strict=True):
        pixels[top:bottom, left:right] = color
    return Image.fromarray(pixels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_boxes_stay_around_their_pixels(seed: int, random_crop: bool, rotate_flip: bool) -> None:
    torch.manual_seed(seed)
    move = Augmentation(random_crop, color_jitter=False, rotate_flip=rotate_flip).geometry()
    image, objects = move(*transform_input(painted(), BOXES, torch.tensor([0, 1])))
    pixels = np.asarray(image).astype(int)
    labels, boxes = make_target(image, objects)
    assert len(labels) == len(boxes) >= (1 if random_crop else 2)
    for label, (x, y, width, height) in zip(labels.tolist(), boxes.tolist(), strict=True):
        mask = np.abs(pixels - np.array(COLORS[label])).sum(-1) < 60
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        stated = (
            (x - width / 2) * image.width,
            (y - height / 2) * image.height,
            (x + width / 2) * image.width,
            (y + height / 2) * image.height,
        )
        assert stated == pytest.approx(drawn, abs=1.01)


@st.composite
def odd_boxes(draw: st.DrawFn, width: int, height: int) -> list[float]:
    left, top = draw(st.floats(0, width, width=32)), draw(st.floats(0, height, width=32))
    return [left, top, draw(st.floats(left, width, width=32)), draw(st.floats(top, height, width=32))]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 2**31), st.data())
def test_images_of_any_size_with_any_number_of_objects(
    width: int, height: int, rotate_flip: bool, seed: int, data: st.DataObject
) -> None:
    augmentation = Augmentation(rotate_flip=rotate_flip)
    boxes = torch.tensor(data.draw(st.lists(odd_boxes(width, height), max_size=3))).reshape(-1, 4)
    annotated_image = transform_input(Image.new("RGB", (width, height)), boxes, torch.arange(len(boxes)))
    torch.manual_seed(seed)
    image, objects = augmentation.geometry()(*annotated_image)
    pixels = normalize(augmentation.color()(to_tensor(np.asarray(image))), Preprocessing())
    assert pixels.shape == (3, image.height, image.width)
    assert min(image.size) >= 1
    labels, targets = make_target(image, objects)
    assert len(labels) == len(targets) <= len(boxes)
    corners = torch.cat((targets[:, :2] - targets[:, 2:] / 2, targets[:, :2] + targets[:, 2:] / 2), dim=1)
    assert ((corners > -1e-5) & (corners < 1 + 1e-5)).all()


def test_rotate_flip_yields_all_orientations() -> None:
    def corners(rotate_flip: bool) -> set[tuple[int, ...]]:
        seen = set()
        move = Augmentation(random_crop=False, color_jitter=False, rotate_flip=rotate_flip).geometry()
        for seed in range(60):
            torch.manual_seed(seed)
            _, objects = move(*transform_input(painted(), BOXES[:1], torch.tensor([0])))
            seen.add(tuple(objects["boxes"][0].round().int().tolist()))
        return seen

    assert corners(rotate_flip=False) == {(12, 20, 60, 50), (68, 20, 116, 50)}
    assert len(corners(rotate_flip=True)) == 8


def test_random_crop_crops_and_pads() -> None:
    def sizes(random_crop: bool) -> list[tuple[int, int]]:
        move, found = Augmentation(random_crop, color_jitter=False).geometry(), []
        for seed in range(100):
            torch.manual_seed(seed)
            found.append(move(*transform_input(painted(), BOXES, torch.tensor([0, 1])))[0].size)
        return found

    assert set(sizes(random_crop=False)) == {(128, 96)}
    varied = sizes(random_crop=True)
    assert sum(width > 128 and height > 96 for width, height in varied) > 10
    assert sum(width < 128 or height < 96 for width, height in varied) > 20
    assert varied.count((128, 96)) > 20


def test_boxes_that_are_too_small_are_dropped() -> None:
    boxes = torch.tensor([[10.0, 10.0, 13.0, 13.0], [20.0, 20.0, 21.0, 60.0]])
    move = Augmentation(random_crop=False, color_jitter=False).geometry()
    _, objects = move(*transform_input(painted(), boxes, torch.tensor([4, 5])))
    assert objects["labels"].tolist() == [4]


def test_color_jitter_changes_colors() -> None:
    gray = torch.tensor([0.3, 0.4, 0.5])[:, None, None].expand(3, 8, 8)
    torch.manual_seed(0)
    kept = [Augmentation(color_jitter=False).color()(gray) for _ in range(8)]
    varied = {tuple(Augmentation(color_jitter=True).color()(gray)[:, 0, 0].tolist()) for _ in range(8)}
    assert all(torch.equal(image, gray) for image in kept)
    assert len(varied) > 4


def test_pixels_are_normalized_as_for_inference() -> None:
    rules = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = normalize(to_tensor(np.asarray(painted())), rules)
    expected = (np.asarray(painted()) / 255 - rules.mean) / rules.std
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), expected, atol=1e-6)
