"""Cores within a container's quota, and memory that is kept once it is freed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detrcli import host
from detrcli.host import cgroup_quota

PAGE_FAULTS = """
import resource, sys
import numpy as np
from detrcli.host import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for iteration in range(8):
    if iteration == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(5 * 2**20, np.uint8) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_quota_of_cgroup_v2(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(tmp_path) is None


def test_quota_of_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    for name, value in (("quota", "400000"), ("period", "100000")):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert cgroup_quota(tmp_path) == 4
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(tmp_path) is None


def test_quota_without_cgroups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("")
    assert cgroup_quota(tmp_path) is None


def test_part_of_a_core_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    assert host.cores() == 1


@pytest.mark.parametrize(("quota", "count"), [("150000", 2), ("20000", 1), ("900000", 3), ("max", 3)])
def test_cores_are_limited_by_quota_and_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, count: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5})
    assert host.cores() == count


def page_faults(mode: str) -> int:
    """Page faults of a process while it allocates and frees 40 MB five times."""
    return int(
        subprocess.run([sys.executable, "-c", PAGE_FAULTS, mode], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs the GNU C library")
def test_freed_memory_is_kept() -> None:
    if page_faults("default") < 1000:
        pytest.skip("this system keeps freed memory by default")
    assert page_faults("kept") < 100
