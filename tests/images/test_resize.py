"""Resize rules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from detrcli.images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    Padded,
    ResizeRule,
    ShortestEdge,
    Within,
    fit_and_pad,
    fixed_size,
    longest_edge,
    resize_image,
)

SHORT = st.integers(1, 100)
SIDE = st.one_of(st.integers(1, 4000), st.integers(1, 1_000_000))


@given(width=SIDE, height=SIDE)
@example(width=1, height=1)
@example(width=20_000, height=10)
@example(width=800, height=1333)
@example(width=1333, height=800)
@example(width=8800, height=10)
def test_shortest_edge(width: int, height: int) -> None:
    new_width, new_height = ShortestEdge(800, 1333).size(width, height)
    assert ShortestEdge(800, 1333).size(height, width) == (new_height, new_width)
    short, long = sorted((width, height))
    new_short, new_long = sorted((new_width, new_height))
    assert new_short >= 1
    assert (new_width < new_height) <= (width < height)  # the longer side stays longer
    if 800 * long <= 1333 * short:
        assert new_short == 800
    else:
        assert new_short == 1 or abs(new_short - 1333 * short / long) <= 0.5
    assert new_long <= 1333 + math.ceil(long / short / 2)  # the shorter side is rounded by up to half a pixel
    if new_short > 1:
        assert abs(new_long - new_short * long / short) <= 1
    else:
        assert new_long <= 1333


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (800, 800)),
        ((640, 480), (1066, 800)),
        ((480, 640), (800, 1066)),
        ((1000, 500), (1332, 666)),
        ((20_000, 10), (1333, 1)),
        ((10, 1_000_000), (1, 1333)),
    ],
)
def test_shortest_edge_of_known_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert ShortestEdge().size(*size) == expected


@given(width=SIDE, height=SIDE, longest=st.integers(1, 1500))
@example(width=427, height=640, longest=1000)
@example(width=333, height=1000, longest=800)
def test_exact_longest_edge(width: int, height: int, longest: int) -> None:
    rule = ExactLongestEdge(800, longest)
    new_width, new_height = rule.size(width, height)
    assert rule.size(height, width) == (new_height, new_width)
    short, long = sorted((width, height))
    new_short, new_long = sorted((new_width, new_height))
    if 800 * long <= longest * short:
        assert (new_width, new_height) == ShortestEdge(800, longest).size(width, height)
    else:
        assert new_long == longest
        assert new_short == 1 or abs(new_short - longest * short / long) <= 0.5
    assert longest_edge(longest).size(width, height)[width < height] == longest


def test_shortest_edge_without_a_longest() -> None:
    assert ShortestEdge(800, None).size(4000, 400) == (8000, 800)


@given(width=SIDE, height=SIDE)
def test_exactly(width: int, height: int) -> None:
    assert Exactly(640, 480).size(width, height) == (640, 480)


@given(width=SIDE, height=SIDE, frame=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
@example(width=10, height=1_000_000, frame=(640, 640))
@example(width=1, height=1, frame=(640, 320))
def test_within_fits_the_frame_and_fills_one_dimension(width: int, height: int, frame: tuple[int, int]) -> None:
    new_width, new_height = Within(*frame).size(width, height)
    assert 1 <= new_width <= frame[0]
    assert 1 <= new_height <= frame[1]
    assert new_width >= frame[0] - 1 or new_height >= frame[1] - 1
    scale = min(frame[0] / width, frame[1] / height)
    assert new_width == 1 or abs(new_width - width * scale) <= 1
    assert new_height == 1 or abs(new_height - height * scale) <= 1


@given(width=SIDE, height=SIDE)
@example(width=1000, height=1)
@example(width=640, height=320)
def test_filled_part_of_a_padded_image(width: int, height: int) -> None:
    rule = fit_and_pad(640, 320)
    assert fixed_size(rule) == (640, 320)
    assert rule.size(width, height) == Within(640, 320).size(width, height)
    assert rule.filled([(height, width)]) == [rule.size(width, height)[::-1]]


def test_padding_is_at_the_bottom_and_right() -> None:
    image = Image.new("RGB", (20, 20), (10, 200, 30))
    pixels = resize_image(image, fit_and_pad(30, 10), PILLOW_BILINEAR)
    assert pixels.shape == (10, 30, 3)
    assert (pixels[:, :10] == [10, 200, 30]).all()
    assert not pixels[:, 10:].any()


@pytest.mark.parametrize("rule", [ShortestEdge(20, 33), Exactly(30, 20), Within(33, 20)], ids=lambda rule: str(rule))
@pytest.mark.parametrize("size", [(1, 1), (40, 10), (10, 400), (2000, 1)])
def test_resized_pixels(rule: ResizeRule, size: tuple[int, int]) -> None:
    pixels = resize_image(Image.new("RGB", size, (10, 200, 30)), rule, PILLOW_BILINEAR)
    width, height = rule.size(*size)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, 3)
    assert (pixels == [10, 200, 30]).all()


@settings(deadline=None)
@given(old=st.tuples(SHORT, SHORT), new=st.tuples(SHORT, SHORT), seed=st.integers(0, 2**31))
@example(old=(1, 1), new=(90, 70), seed=0)
@example(old=(90, 70), new=(1, 1), seed=0)
@example(old=(1, 90), new=(70, 1), seed=0)
@example(old=(7, 2000), new=(384, 384), seed=0)  # only some of the rows are converted to arrays
@example(old=(2000, 7), new=(384, 384), seed=0)
@example(old=(3, 1999), new=(5, 701), seed=0)  # where PyTorch's rounding of positions shows
def test_bilinear_sampling_is_that_of_pytorch(old: tuple[int, int], new: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (old[1], old[0], 3), np.uint8)
    pixels = BilinearSampling().resize(Image.fromarray(image), *new)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = functional.interpolate(planes, new[::-1], mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=255e-6)


@pytest.mark.parametrize("old", [(640, 480), (1500, 2000)])
def test_bilinear_sampling_of_larger_images(old: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    for side in (384, 701):
        expected = functional.interpolate(planes, (side, side), mode="bilinear")[0].permute(1, 2, 0)
        pixels = BilinearSampling().resize(Image.fromarray(image), side, side)
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=255e-6)


def test_sampled_pixels_are_padded_and_not_rounded() -> None:
    image = Image.fromarray(np.array([[[0, 0, 0], [5, 50, 255]]], np.uint8))
    pixels = resize_image(image, Padded(Exactly(4, 1), 6, 2), BilinearSampling())
    assert pixels.dtype == np.float32
    assert pixels[0].tolist() == [[0, 0, 0], [1.25, 12.5, 63.75], [3.75, 37.5, 191.25], [5, 50, 255], [0] * 3, [0] * 3]
    assert not pixels[1].any()


@pytest.mark.parametrize(
    ("rule", "number", "sides"),
    [
        (ShortestEdge(800, None), ShortestEdge(480, 800), Exactly(480, 320)),
        (ExactLongestEdge(800, 1000), ExactLongestEdge(480, 480), Exactly(480, 320)),
        (Exactly(640, 512), Exactly(480, 480), Exactly(480, 320)),
        (Within(1333, 1333), ShortestEdge(480, 800), Exactly(480, 320)),
        (Padded(Within(600, 600), 640, 640), fit_and_pad(480, 480), fit_and_pad(480, 320)),
    ],
    ids=str,
)
def test_the_rule_for_another_size(rule: ResizeRule, number: ResizeRule, sides: ResizeRule) -> None:
    assert rule.for_size(480) == number
    assert rule.for_size((480, 320)) == sides


def test_the_longest_side_of_the_paper() -> None:
    assert ShortestEdge().for_size(800) == ShortestEdge(800, 1333)
