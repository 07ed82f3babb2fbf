"""Texts of errors."""

import pytest

from detrcli.errors import ImageError, ModelError


def test_long_messages_are_cut_in_the_middle() -> None:
    error = ModelError(f"model/config.json says layers = {'9' * 1_000_000}; get it again")
    assert len(str(error)) <= 1000
    assert str(error).startswith("model/config.json says layers = 999")
    assert str(error).endswith("9; get it again")


@pytest.mark.parametrize("length", [0, 1, 999, 1000])
def test_other_messages_are_whole(length: int) -> None:
    assert str(ImageError("é" * length)) == "é" * length
