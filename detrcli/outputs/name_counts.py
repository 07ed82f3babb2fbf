"""Counts of a million names in little memory."""

from collections.abc import Iterable

import numpy as np

from ..files import digest_of_name


class NameCounts:
    """Number of occurrences of each of many names, in 16 bytes per name.

    Args:
        names: all of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known, self._left = np.unique(np.fromiter(map(digest_of_name, names), np.uint64), return_counts=True)

    def take(self, name: str) -> bool:
        """Remove one occurrence of a name; False if none is left."""
        place = self._place(name)
        if place is None or not self._left[place]:
            return False
        self._left[place] -= 1
        return True

    def drop(self, name: str) -> None:
        """Remove all occurrences of a name."""
        place = self._place(name)
        if place is not None:
            self._left[place] = 0

    @property
    def left(self) -> int:
        """Number of different names that are left."""
        return int(np.count_nonzero(self._left))

    def __contains__(self, name: str) -> bool:
        return self._place(name) is not None

    def _place(self, name: str) -> int | None:
        digest = np.uint64(digest_of_name(name))
        place = int(np.searchsorted(self._known, digest))
        return place if place < len(self._known) and self._known[place] == digest else None
