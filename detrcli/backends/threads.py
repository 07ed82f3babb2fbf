"""How many threads to compute with."""

import os

from ..cores import cores


def threads() -> int:
    """As many as OMP_NUM_THREADS says, which PyTorch heeds as well, or one for each core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else cores()
