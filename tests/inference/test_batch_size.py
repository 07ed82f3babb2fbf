"""Adaptive batch size."""

import pytest

from detrcli.inference.batch_size import MAX_BATCH_SIZE, BatchSize


def tried(rates: dict[int, float]) -> list[int]:
    """Batch sizes in the order in which they are tried on a device with known rates."""
    size = BatchSize(1, grows=True)
    sizes = [size.current]
    for _ in range(200):
        current = size.current
        size.record(current, current, current / rates.get(current, max(rates.values())))
        if size.current != sizes[-1]:
            sizes.append(size.current)
    return sizes


def test_it_doubles_as_long_as_that_is_faster() -> None:
    assert tried({1: 10, 2: 18, 4: 30, 8: 30.1, 16: 90}) == [1, 2, 4, 8, 4]


def test_it_stays_if_doubling_is_no_faster() -> None:
    assert tried({1: 10, 2: 10.4}) == [1, 2, 1]


def test_it_is_bounded() -> None:
    assert tried({2**power: 2.0**power for power in range(20)})[-1] == MAX_BATCH_SIZE


def test_partial_batches_and_the_first_of_a_size_are_ignored() -> None:
    size = BatchSize(4, grows=True)
    size.record(4, 4, 1000)  # while the device warms up
    for _ in range(10):
        size.record(3, 3, 1e-9)
    assert size.current == 4
    for _ in range(3):
        size.record(4, 4, 1)
    assert size.current == 8


@pytest.mark.parametrize("grows", [True, False])
def test_it_is_halved_for_good(grows: bool) -> None:
    size = BatchSize(8, grows=grows)
    size.halve()
    for _ in range(20):
        size.record(4, 4, 1e-6)
    assert size.current == 4
    for _ in range(5):
        size.halve()
    assert size.current == 1


def test_a_fixed_size_stays() -> None:
    size = BatchSize(3)
    for count in range(20):
        size.record(3, 3, 1 / (count + 1))
    assert size.current == 3
