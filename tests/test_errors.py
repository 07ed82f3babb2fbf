"""What a user reads when something is wrong."""

import pytest

from detrcli.errors import ImageError, ModelError


def test_a_message_that_quotes_a_damaged_file_stays_readable() -> None:
    error = ModelError(f"model/config.json says layers = {'9' * 1_000_000}; get it again")
    assert len(str(error)) <= 1000
    assert str(error).startswith("model/config.json says layers = 999")
    assert str(error).endswith("9; get it again")


@pytest.mark.parametrize("length", [0, 1, 999, 1000])
def test_a_message_is_whole_otherwise(length: int) -> None:
    assert str(ImageError("é" * length)) == "é" * length
