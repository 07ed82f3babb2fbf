"""The machine: cores, threads, memory, and names of processors. Imports only the standard library, to start fast."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

CGROUP = Path("/sys/fs/cgroup")
MAX_PARALLEL_IMAGES = 8
"""Bounds the memory of images that run at the same time."""
SPIN_COUNT = 10_000
"""A few tenths of a millisecond: longer than the pause between two steps of a network."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`."""
MAX_KEPT_BYTES = 512 * 2**20
"""Freed memory that the C library may keep."""
LARGE_BLOCK_BYTES = 64 * 2**20
"""Blocks of this size are returned to the system in any case."""


def cores() -> int:
    """Number of cores that this process may use, by CPU affinity and the container's CPU quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota(CGROUP)
    return count if quota is None else min(count, max(1, math.ceil(quota)))


def cgroup_quota(folder: Path) -> float | None:
    """CPU quota of a Linux control group (version 1 or 2) in cores, or None if unlimited."""
    try:
        if (folder / "cpu.max").is_file():
            share, period = (folder / "cpu.max").read_text().split()
        else:
            share, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(share) / float(period) if float(share) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None


def threads() -> int:
    """Number of threads to compute with: OMP_NUM_THREADS, as in PyTorch, or one per core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else cores()


def parallel_images() -> int:
    """Number of images to run on the CPU at the same time: with one thread each, no thread waits for another."""
    return min(threads(), MAX_PARALLEL_IMAGES)


def limit_openmp_spinning() -> None:
    """Let waiting OpenMP threads spin only briefly before they sleep.

    By default, those of GNU's OpenMP, which PyTorch uses on Linux, spin 300 000 times. If another program occupies part
    of a core, threads wait at each of a network's hundreds of steps, and an image takes ten times as long.

    Must be called before PyTorch is loaded; also affects child processes. Variables that the user has set take
    precedence.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def keep_freed_memory() -> None:
    """Let the GNU C library keep freed memory for reuse, in the whole process; without effect on others.

    A network on a CPU allocates and frees the same tens of megabytes for each image. By default, they are returned to
    the system in between, which then has to clear every page anew: an eighth of LW-DETR-tiny's time.
    """
    mallopt = _c_function("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Let the GNU C library return all freed memory to the system.

    It keeps some per thread, which after a large image is hundreds of megabytes.
    """
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _c_function(name: str) -> Callable[..., int] | None:
    import ctypes

    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def cpu_name() -> str:
    """Name of the CPU, or its architecture if unknown."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:  # exists on Linux only
        pass
    return platform.processor() or platform.machine()


def gpu_name(index: int) -> str | None:
    """Name of a CUDA device, or None if the driver does not tell."""
    import ctypes

    driver = cuda_driver()
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    return None if driver.cuDeviceGetName(name, len(name), device) else name.value.decode()


def cuda_driver() -> "CDLL | None":
    """CUDA driver library, or None if there is none."""
    from ctypes import CDLL

    try:
        return CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
