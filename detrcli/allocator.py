"""What becomes of memory that is freed."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What `mallopt` calls them."""
KEPT = 512 * 2**20
"""Bytes that are kept at most."""
LARGE = 64 * 2**20
"""Bytes of a block that is given back at once all the same."""


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for what comes next, in this whole process.

    A network on a CPU frees and takes the same tens of megabytes for each picture. The GNU C library gives them back to
    the system in between, which then has to find and clear every page anew: an eighth of LW-DETR-tiny's time. Does
    nothing where there is another C library.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(TRIM_THRESHOLD, KEPT)
