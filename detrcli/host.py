"""What the machine gives: cores, threads, memory, and the names of its processors. Standard library only."""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: those it may run on, and not more than its container's share of time."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota(CGROUP)
    return count if quota is None else min(count, max(1, math.ceil(quota)))


def cgroup_quota(folder: Path) -> float | None:
    """How many cores' time a control group may take, in either version of Linux's control groups, or None for all."""
    try:
        if (folder / "cpu.max").is_file():
            share, period = (folder / "cpu.max").read_text().split()
        else:
            share, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(share) / float(period) if float(share) > 0 else None
    except (OSError, ValueError):  # there is none, or it says "max"
        return None


MAX_PARALLEL_IMAGES = 8
"""Each takes memory."""


def threads() -> int:
    """Number of threads to compute with: OMP_NUM_THREADS, as in PyTorch, or one per core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else cores()


def parallel_images() -> int:
    """Number of images to run on the CPU at the same time: with a thread each, no thread waits for another."""
    return min(threads(), MAX_PARALLEL_IMAGES)


TURNS = 10_000
"""Some tenths of a millisecond: longer than the pause between two steps of a network."""


def limit_openmp_spinning() -> None:
    """Let a thread that waits for others soon leave its core to whoever needs it.

    GNU's OpenMP, which PyTorch uses on Linux, has it turn 300 000 times first. Where another program takes part of a
    core, the threads of a network wait at each of its hundreds of steps, and one image takes ten times as long. Must
    be called before PyTorch is loaded, holds for child processes, too, and changes nothing that the user has set.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(TURNS))


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What `mallopt` calls them."""
KEPT = 512 * 2**20
"""Bytes that are kept at most."""
LARGE = 64 * 2**20
"""Bytes of a block that is given back at once all the same."""


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for what comes next, in this whole process.

    A network on a CPU frees and takes the same tens of megabytes for each image. The GNU C library gives them back to
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


def cpu_name() -> str:
    """The CPU's name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:  # there is no such file but on Linux
        pass
    return platform.processor() or platform.machine()


def gpu_name(index: int) -> str | None:
    """The name of one of the driver's CUDA devices, or None if it does not tell."""
    driver = cuda_driver()
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    return None if driver.cuDeviceGetName(name, len(name), device) else name.value.decode()


def cuda_driver() -> ctypes.CDLL | None:
    """CUDA's driver, if there is one."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
