"""A part of the images for each of several machines that know nothing of each other."""

import hashlib
import re
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One part of several.

    Attributes:
        index: which one, from 0.
        count: how many there are.
    """

    index: int
    count: int

    def takes(self, relative: str) -> bool:
        """Whether an image belongs to this part: it depends on nothing but where the image's outputs belong."""
        digest = hashlib.blake2b(relative.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """The part that a user wrote as I/N.

    Raises:
        UsageError: it is not of that form, or there is no such part.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard takes I/N, with I from 0 to N - 1, not {text!r}")
    return Shard(int(match[1]), int(match[2]))
