"""Boxes go where their pixels go."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.training.augment import Augmentation, annotated, as_target, normalised

COLORS = ((255, 0, 0), (0, 255, 0))
BOXES = torch.tensor([[12.0, 20.0, 60.0, 50.0], [70.0, 8.0, 110.0, 76.0]])


def painted() -> Image.Image:
    pixels = np.zeros((96, 128, 3), np.uint8)
    for color, (left, top, right, bottom) in zip(COLORS, BOXES.int().tolist(), strict=True):
        pixels[top:bottom, left:right] = color
    return Image.fromarray(pixels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_boxes_stay_around_their_pixels(seed: int, crops: bool, any_orientation: bool) -> None:
    torch.manual_seed(seed)
    move = Augmentation(crops, colors=False, any_orientation=any_orientation).move()
    image, objects = move(*annotated(painted(), BOXES, torch.tensor([0, 1])))
    pixels = np.asarray(image).astype(int)
    labels, boxes = as_target(image, objects)
    assert len(labels) == len(boxes) >= (1 if crops else 2)
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
def test_images_of_every_size_and_without_objects(
    width: int, height: int, any_orientation: bool, seed: int, data: st.DataObject
) -> None:
    augmentation = Augmentation(any_orientation=any_orientation)
    boxes = torch.tensor(data.draw(st.lists(odd_boxes(width, height), max_size=3))).reshape(-1, 4)
    annotated_image = annotated(Image.new("RGB", (width, height)), boxes, torch.arange(len(boxes)))
    torch.manual_seed(seed)
    image, objects = augmentation.move()(*annotated_image)
    pixels = normalised(augmentation.recolor()(image), Preprocessing())
    assert pixels.shape == (3, image.height, image.width)
    assert min(image.size) >= 1
    labels, targets = as_target(image, objects)
    assert len(labels) == len(targets) <= len(boxes)
    corners = torch.cat((targets[:, :2] - targets[:, 2:] / 2, targets[:, :2] + targets[:, 2:] / 2), dim=1)
    assert ((corners > -1e-5) & (corners < 1 + 1e-5)).all()


def test_every_orientation_is_seen_only_where_it_may_be() -> None:
    def corners(any_orientation: bool) -> set[tuple[int, ...]]:
        seen = set()
        move = Augmentation(crops=False, colors=False, any_orientation=any_orientation).move()
        for seed in range(60):
            torch.manual_seed(seed)
            _, objects = move(*annotated(painted(), BOXES[:1], torch.tensor([0])))
            seen.add(tuple(objects["boxes"][0].round().int().tolist()))
        return seen

    assert corners(any_orientation=False) == {(12, 20, 60, 50), (68, 20, 116, 50)}
    assert len(corners(any_orientation=True)) == 8


def test_parts_are_cut_out_and_margins_added_only_where_they_may_be() -> None:
    def sizes(crops: bool) -> list[tuple[int, int]]:
        move, found = Augmentation(crops, colors=False).move(), []
        for seed in range(100):
            torch.manual_seed(seed)
            found.append(move(*annotated(painted(), BOXES, torch.tensor([0, 1])))[0].size)
        return found

    assert set(sizes(crops=False)) == {(128, 96)}
    varied = sizes(crops=True)
    assert sum(width > 128 and height > 96 for width, height in varied) > 10
    assert sum(width < 128 or height < 96 for width, height in varied) > 20
    assert varied.count((128, 96)) > 20


def test_only_what_is_hardly_there_is_left_out() -> None:
    boxes = torch.tensor([[10.0, 10.0, 13.0, 13.0], [20.0, 20.0, 21.0, 60.0]])
    move = Augmentation(crops=False, colors=False).move()
    _, objects = move(*annotated(painted(), boxes, torch.tensor([4, 5])))
    assert objects["labels"].tolist() == [4]


def test_colors_change_only_if_they_may() -> None:
    grey = Image.new("RGB", (8, 8), (90, 120, 150))
    torch.manual_seed(0)
    kept = [Augmentation(colors=False).recolor()(grey).getpixel((0, 0)) for _ in range(8)]
    varied = {Augmentation(colors=True).recolor()(grey).getpixel((0, 0)) for _ in range(8)}
    assert set(kept) == {(90, 120, 150)}
    assert len(varied) > 4


def test_pixels_are_those_of_inference() -> None:
    rules = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = normalised(painted(), rules)
    expected = (np.asarray(painted()) / 255 - rules.mean) / rules.std
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), expected, atol=1e-6)
