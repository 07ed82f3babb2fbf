"""Order and size of the images of each epoch."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detrcli.images.resize import ExactLongestEdge, Exactly, ShortestEdge
from detrcli.training.sampler import Sampler, multi_scale_rules

RULE = Exactly(64, 64)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 3), st.integers(0, 5))
def test_each_image_appears_at_most_once_per_epoch(count: int, size: int, processes: int, epoch: int) -> None:
    samplers = [Sampler(count, size, (RULE,), 7, rank, processes) for rank in range(processes)]
    epochs = [sampler.epoch(epoch) for sampler in samplers]
    assert {len(batch) for one in epochs for batch in one} == {size}
    assert {len(one) for one in epochs} == {samplers[0].steps}
    times = Counter(draw.image for one in epochs for batch in one for draw in batch)
    if count >= size * processes:
        assert max(times.values()) == 1
        assert sum(times.values()) > count - size * processes
    else:
        assert max(times.values()) - min(times.get(image, 0) for image in range(count)) <= 1


def test_batches_depend_on_epoch_and_seed_only() -> None:
    assert Sampler(9, 2, (RULE,), 1).epoch(3) == Sampler(9, 2, (RULE,), 1).epoch(3)
    assert Sampler(9, 2, (RULE,), 1).epoch(3) != Sampler(9, 2, (RULE,), 1).epoch(4)
    assert Sampler(9, 2, (RULE,), 1).epoch(3) != Sampler(9, 2, (RULE,), 2).epoch(3)


def test_each_batch_has_one_size_and_each_epoch_has_all_sizes() -> None:
    rules = multi_scale_rules(Exactly(256, 256), 64)
    assert rules == (Exactly(192, 192), Exactly(256, 256), Exactly(320, 320))
    drawn = [{draw.rule for draw in batch} for batch in Sampler(100, 2, rules, 0).epoch(0)]
    assert {len(one) for one in drawn} == {1}
    assert set().union(*drawn) == set(rules)


@pytest.mark.parametrize("kind", [ShortestEdge, ExactLongestEdge])
def test_multi_scale_training_keeps_the_kind_of_rule(kind: type[ShortestEdge]) -> None:
    shortest = (480, 560, 640, 720, 800)
    assert multi_scale_rules(kind(800, 1333), 1) == tuple(kind(side, 1333) for side in shortest)
