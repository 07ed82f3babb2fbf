"""Shards for machines that need not know of each other."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detrcli.errors import UsageError
from detrcli.outputs.shards import Shard, parse_shard


@example("\ud800 and \udcff", 3)
@given(st.text(st.characters(), max_size=40), st.integers(1, 50))
def test_each_image_belongs_to_exactly_one_shard(relative: str, count: int) -> None:
    assert sum(Shard(index, count).takes(relative) for index in range(count)) == 1


def test_shards_are_about_equal_and_never_change() -> None:
    names = [f"folder/{number:06}.jpg" for number in range(4000)]
    shares = [sum(Shard(index, 4).takes(name) for name in names) for index in range(4)]
    assert min(shares) > 900
    assert [Shard(index, 4).takes("a.jpg") for index in range(4)] == [False, True, False, False]


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "0/0", "a/b", "1/2/3", "1 /2", "0/1.5"])
def test_invalid_shards(text: str) -> None:
    with pytest.raises(UsageError, match="a shard is I/N"):
        parse_shard(text)
    assert str(parse_shard("2/3")) == "2/3"
