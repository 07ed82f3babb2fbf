"""Labels found by class names."""

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
def test_exact_spelling_comes_before_other_case(name: str, labels: list[int]) -> None:
    assert matching_labels([name, "N/A"], CLASSES) == [labels, [0]]


def test_case_folding_may_change_the_length() -> None:
    assert matching_labels(["Straße", "STRASSE"], ["Strasse", "Straße"]) == [[1], [0, 1]]
