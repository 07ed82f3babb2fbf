"""The batch size that a device is fastest with."""

import pytest

from detrcli.inference.batch_size import MOST, BatchSize


def settled(rate_of: dict[int, float]) -> list[int]:
    """The sizes that are tried on a device of known speeds, in order."""
    size = BatchSize(1, grows=True)
    tried = [size.most]
    for _ in range(200):
        most = size.most
        size.note(most, most, most / rate_of.get(most, max(rate_of.values())))
        if size.most != tried[-1]:
            tried.append(size.most)
    return tried


def test_it_doubles_as_long_as_that_is_faster() -> None:
    assert settled({1: 10, 2: 18, 4: 30, 8: 30.1, 16: 90}) == [1, 2, 4, 8, 4]


def test_it_stays_where_more_is_no_faster() -> None:
    assert settled({1: 10, 2: 10.4}) == [1, 2, 1]


def test_it_ends_somewhere() -> None:
    assert settled({2**power: 2.0**power for power in range(20)})[-1] == MOST


def test_batches_that_are_not_full_and_the_first_of_a_size_tell_nothing() -> None:
    size = BatchSize(4, grows=True)
    size.note(4, 4, 1000)  # the first one: a device warms up
    for _ in range(10):
        size.note(3, 3, 1e-9)
    assert size.most == 4
    for _ in range(3):
        size.note(4, 4, 1)
    assert size.most == 8


@pytest.mark.parametrize("grows", [True, False])
def test_a_memory_that_was_too_small_halves_it_for_good(grows: bool) -> None:
    size = BatchSize(8, grows=grows)
    size.halve()
    for _ in range(20):
        size.note(4, 4, 1e-6)
    assert size.most == 4
    for _ in range(5):
        size.halve()
    assert size.most == 1


def test_a_size_that_a_user_chose_stays() -> None:
    size = BatchSize(3)
    for count in range(20):
        size.note(3, 3, 1 / (count + 1))
    assert size.most == 3
