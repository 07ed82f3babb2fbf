"""How many threads to compute with."""

import os

from ..cores import cores

MOST_AT_ONCE = 8
"""Pictures that a CPU looks at at once, each of which takes memory."""


def threads() -> int:
    """As many as OMP_NUM_THREADS says, which PyTorch heeds as well, or one for each core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else cores()


def at_once() -> int:
    """How many pictures a CPU looks at at once where there are many: one a thread has no waiting for other threads."""
    return min(threads(), MOST_AT_ONCE)
