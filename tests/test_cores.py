"""How many cores a container leaves."""

import os
from pathlib import Path

import pytest

from detrcli import cores
from detrcli.cores import cgroup_quota


def test_the_second_version_of_control_groups(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(tmp_path) is None


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    for name, value in (("quota", "400000"), ("period", "100000")):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert cgroup_quota(tmp_path) == 4
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(tmp_path) is None


def test_no_control_groups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("")
    assert cgroup_quota(tmp_path) is None


def test_a_share_of_a_core_is_one_to_compute_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    assert cores.cores() == 1


@pytest.mark.parametrize(("quota", "count"), [("150000", 2), ("20000", 1), ("900000", 3), ("max", 3)])
def test_the_share_of_time_and_the_cores_it_may_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, count: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5})
    assert cores.cores() == count
