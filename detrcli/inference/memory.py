"""Memories that are too small, in whatever words a library says so."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..errors import DetrError, DeviceMemoryError

WORDS = (
    *("allocate memory", "bad_alloc", "failed to allocate", "out of memory", "alloc_failed"),
    "storage size calculation overflow",
)
"""The CPU's, CUDA's, its libraries', MPS's and ONNX Runtime's."""


@contextmanager
def enough_memory(device: object, purpose: str) -> Iterator[None]:
    """Let the block fail plainly where a device's memory is too small.

    Args:
        device: its name.
        purpose: how the text goes on: for what, and what to do.

    Raises:
        DeviceMemoryError: it is too small.
    """
    try:
        yield
    except DetrError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no kind of their own
        if not is_for_want_of_memory(error):
            raise
        raise DeviceMemoryError(f"the memory of {device} is too small {purpose}") from error


def is_for_want_of_memory(error: Exception) -> bool:
    """Whether an error says that a memory is too small."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in WORDS)


def for_images(pixels: Sequence[NDArray[np.uint8]]) -> str:
    """What memory is needed for: the purpose of running images (H, W, 3) of one shape at once."""
    height, width, _ = pixels[0].shape
    return f"for {len(pixels)} × {width} × {height} pixels at once; use a smaller --batch-size or --image-size"
