"""How many cores there are to use."""

import math
import os
import sys
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
