"""Shards: parts of the images, for several machines that need not know of each other."""

import re
from dataclasses import dataclass

from ..errors import UsageError
from ..files import digest_of_name


@dataclass(frozen=True)
class Shard:
    """One part of the images.

    Attributes:
        index: number of the shard, from 0.
        count: number of shards.
    """

    index: int
    count: int

    def takes(self, relative: str) -> bool:
        """Whether an image belongs to this shard; only the path of its outputs below the output folder decides."""
        return digest_of_name(relative) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Shard written as I/N.

    Raises:
        UsageError: the text has another form, or there is no such shard.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"a shard is I/N, with I from 0 to N - 1, not {text!r}")
    return Shard(int(match[1]), int(match[2]))
