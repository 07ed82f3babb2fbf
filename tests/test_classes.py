"""Which classes a name means: for `--class`, for a dataset's objects, and for the weights that a training keeps."""

import pytest

from detrcli.classes import matching_labels

CLASSES = ("N/A", "person", " Traffic Light", "Cat", "cat", "person")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("person", [1, 5]),
        ("PERSON", [1, 5]),
        ("traffic light  ", [2]),
        ("cat", [4]),
        ("Cat", [3]),
        ("CAT", [3, 4]),
        ("dog", []),
        ("", []),
    ],
)
def test_a_name_as_it_is_written_comes_before_other_capitals(name: str, labels: list[int]) -> None:
    assert matching_labels([name, "N/A"], CLASSES) == [labels, [0]]


def test_letters_that_are_longer_in_capitals() -> None:
    assert matching_labels(["Straße", "STRASSE"], ["Strasse", "Straße"]) == [[1], [0, 1]]
