"""What processors are called by their makers."""

import ctypes
import platform
import sys
from pathlib import Path


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
