"""What becomes of memory that is freed."""

import ctypes
import sys
from collections.abc import Callable

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
    mallopt = _of_the_c_library("mallopt")
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(TRIM_THRESHOLD, KEPT)


def give_back_freed_memory() -> None:
    """Let the C library give all freed memory back to the system, where it is GNU's.

    It keeps some for each thread, of a large image hundreds of megabytes.
    """
    malloc_trim = _of_the_c_library("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_the_c_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
