"""Memory that is freed and taken again is not asked of the system again."""

import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from detrcli.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for turn in range(8):
    if turn == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(5 * 2**20, np.uint8) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    """Pages that a process took anew while it freed and took 40 MB five times."""
    return int(subprocess.run([sys.executable, "-c", PAGES, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library's")
def test_freed_memory_is_kept() -> None:
    if pages("given back") < 1000:
        pytest.skip("this system keeps it anyway")
    assert pages("kept") < 100
