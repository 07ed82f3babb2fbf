"""A share of a dataset held out for validation."""

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
    """A dataset of images with objects of these classes."""
    examples = []
    for image_id, ones in enumerate(labels):
        count = len(ones)
        boxes = np.tile(np.array([0, 0, 4, 4], np.float32), (count, 1))
        areas, crowd = np.full(count, 16, np.float32), np.zeros(count, np.bool_)
        labelled = np.array(sorted(ones), np.int64)
        examples.append(Example(Path(f"{image_id}.png"), image_id, 8, 8, boxes, labelled, areas, crowd))
    return Dataset("pets", CLASSES, (0, 1, 2, 3), tuple(examples), ("a problem",))


def images_of(data: Dataset) -> Counter[int]:
    """How many images each class has; -1 is none."""
    return Counter(label for one in data.examples for label in set(one.labels.tolist()) or {-1})


def ids(data: Dataset) -> list[int | str]:
    return [one.image_id for one in data.examples]


image_labels = st.sets(st.integers(0, 3))


@given(st.lists(image_labels, min_size=2, max_size=60), st.floats(0.01, 0.6), st.integers(0, 9))
def test_it_is_a_partition_and_the_same_each_time(labels: list[set[int]], fraction: float, seed: int) -> None:
    data = dataset(*labels)
    wanted = max(1, round(fraction * len(labels)))
    learned, judged = hold_out(data, fraction, seed=seed)
    assert len(judged.examples) == wanted
    assert sorted(ids(learned) + ids(judged)) == ids(data)
    assert (ids(learned), ids(judged)) == (sorted(ids(learned)), sorted(ids(judged)))
    assert learned.classes == judged.classes == CLASSES
    assert (learned.problems, judged.problems) == (data.problems, ())
    again = hold_out(data, fraction, seed=seed)
    assert (ids(again[0]), ids(again[1])) == (ids(learned), ids(judged))


@given(st.lists(st.integers(0, 4), min_size=80, max_size=200), st.sampled_from([0.2, 0.3, 0.5]), st.integers(0, 9))
def test_each_class_has_its_share_on_both_sides(labels: list[int], fraction: float, seed: int) -> None:
    data = dataset(*(set() if label == 4 else {label} for label in labels))
    whole = images_of(data)
    learned, judged = map(images_of, hold_out(data, fraction, seed=seed))
    for label, count in whole.items():
        assert learned[label] > 0
        if count > 1:
            assert judged[label] > 0
        assert abs(judged[label] - fraction * count) < 3.5


def test_a_class_of_a_single_image_is_learned_from() -> None:
    data = dataset({0, 1}, {0}, {0, 2}, {0}, {3})
    for seed in range(20):
        learned, judged = hold_out(data, 0.4, seed=seed)
        assert ids(judged) == [1, 3]
        assert images_of(learned) == {0: 2, 1: 1, 2: 1, 3: 1}


def test_where_every_image_is_the_only_one_of_its_class_the_share_is_held_out_all_the_same() -> None:
    assert len(hold_out(dataset({0}, {1}, {2}, {3}), 0.5, seed=0)[1].examples) == 2


def test_seeds_choose_differently() -> None:
    data = dataset(*({0} for _ in range(40)))
    assert len({tuple(ids(hold_out(data, 0.1, seed=seed)[1])) for seed in range(10)}) > 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.1), (2, 0.9)])
def test_too_few_images(count: int, fraction: float) -> None:
    with pytest.raises(DatasetError, match=f"pets: {count} images are too few to hold out {fraction} of them"):
        hold_out(dataset(*({0} for _ in range(count))), fraction, seed=0)
