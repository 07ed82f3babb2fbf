"""Holding out a part of a dataset for validation."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detrcli.datasets import Dataset, Example
from detrcli.datasets.holdout import hold_out
from detrcli.errors import DatasetError

CLASSES = ("a", "b", "c", "d")


def dataset(*labels: set[int]) -> Dataset:
    """Dataset of images with objects of the given classes."""
    examples = []
    for image_id, classes in enumerate(labels):
        count = len(classes)
        boxes = np.tile(np.array([0, 0, 4, 4], np.float32), (count, 1))
        areas, crowd = np.full(count, 16, np.float32), np.zeros(count, np.bool_)
        label_ids = np.array(sorted(classes), np.int64)
        examples.append(Example(Path(f"{image_id}.png"), image_id, 8, 8, boxes, label_ids, areas, crowd))
    return Dataset("pets", CLASSES, (0, 1, 2, 3), tuple(examples), ("a problem",))


def images_of(data: Dataset) -> Counter[int]:
    """Number of images of each class, and of images without objects at -1."""
    return Counter(label for one in data.examples for label in set(one.labels.tolist()) or {-1})


def ids(data: Dataset) -> list[int | str]:
    return [one.image_id for one in data.examples]


image_labels = st.sets(st.integers(0, 3))


@given(st.lists(image_labels, min_size=2, max_size=60), st.floats(0.01, 0.6), st.integers(0, 9))
def test_partition_is_deterministic(labels: list[set[int]], fraction: float, seed: int) -> None:
    data = dataset(*labels)
    expected = max(1, round(fraction * len(labels)))
    train, val = hold_out(data, fraction, seed=seed)
    assert len(val.examples) == expected
    assert sorted(ids(train) + ids(val)) == ids(data)
    assert (ids(train), ids(val)) == (sorted(ids(train)), sorted(ids(val)))
    assert train.classes == val.classes == CLASSES
    assert (train.problems, val.problems) == (data.problems, ())
    again = hold_out(data, fraction, seed=seed)
    assert (ids(again[0]), ids(again[1])) == (ids(train), ids(val))


@given(st.lists(st.integers(0, 4), min_size=80, max_size=200), st.sampled_from([0.2, 0.3, 0.5]), st.integers(0, 9))
def test_classes_are_stratified(labels: list[int], fraction: float, seed: int) -> None:
    data = dataset(*(set() if label == 4 else {label} for label in labels))
    total = images_of(data)
    train, val = map(images_of, hold_out(data, fraction, seed=seed))
    for label, count in total.items():
        assert train[label] > 0
        if count > 1:
            assert val[label] > 0
        assert abs(val[label] - fraction * count) < 3.5


def test_class_with_a_single_image_is_in_the_training_part() -> None:
    data = dataset({0, 1}, {0}, {0, 2}, {0}, {3})
    for seed in range(20):
        train, val = hold_out(data, 0.4, seed=seed)
        assert ids(val) == [1, 3]
        assert images_of(train) == {0: 2, 1: 1, 2: 1, 3: 1}


def test_images_are_held_out_even_if_each_has_a_class_of_its_own() -> None:
    assert len(hold_out(dataset({0}, {1}, {2}, {3}), 0.5, seed=0)[1].examples) == 2


def test_seeds_give_different_splits() -> None:
    data = dataset(*({0} for _ in range(40)))
    assert len({tuple(ids(hold_out(data, 0.1, seed=seed)[1])) for seed in range(10)}) > 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.1), (2, 0.9)])
def test_too_few_images(count: int, fraction: float) -> None:
    with pytest.raises(DatasetError, match=f"pets: {count} images are too few to hold out {fraction} of them"):
        hold_out(dataset(*({0} for _ in range(count))), fraction, seed=0)
