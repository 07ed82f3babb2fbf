"""How long threads that compute wait for one another."""

import os

TURNS = 10_000
"""Some tenths of a millisecond: longer than the pause between two steps of a network."""


def wait_briefly() -> None:
    """Let a thread that waits for others soon leave its core to whoever needs it.

    GNU's OpenMP, which PyTorch uses on Linux, has it turn 300 000 times first. Where another program takes part of a
    core, the threads of a network wait at each of its hundreds of steps, and one picture takes ten times as long. Must
    be called before PyTorch is loaded, holds for child processes, too, and changes nothing that the user has set.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(TURNS))
