"""Out-of-memory errors of every engine, recognized by their words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import DetrError, DeviceMemoryError
from ..images.resize import Pixels

WORDS = (
    *("allocate memory", "bad_alloc", "failed to allocate", "out of memory", "alloc_failed"),
    "storage size calculation overflow",
)
"""Of the CPU's allocators, CUDA and its libraries, MPS and ONNX Runtime."""


@contextmanager
def enough_memory(device: object, purpose: str) -> Iterator[None]:
    """Turn out-of-memory errors in the block into one that says which device lacks memory, and what for.

    Args:
        device: name of the device.
        purpose: continues the message, as "for this batch".

    Raises:
        DeviceMemoryError: the device's memory is too small.
    """
    try:
        yield
    except DetrError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no class
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(f"the memory of {device} is too small {purpose}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is too small."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in WORDS)


def for_images(pixels: Sequence[Pixels]) -> str:
    """Purpose for `enough_memory` of running a batch of resized images."""
    height, width, _ = pixels[0].shape
    return f"for {len(pixels)} × {width} × {height} pixels at once"
