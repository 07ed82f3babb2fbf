"""The script for a GPU runs without one, goes on after failures, and keeps to its time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import gpu_day

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # a minute
def test_the_script_runs_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.gpu_day", "--device", "cpu", "--quick", "--output", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((tmp_path / "gpu_day.json").read_text())
    (tests,), (folder,), networks = found["tests"], found["folder"], found["networks"]
    assert "skipped" in tests["result"]
    assert folder["images a second"] > 0
    assert "network" in folder["seconds of all threads"]
    assert [(one["network"], one["batch"]) for one in networks] == [
        (name, batch) for batch in (1, 2) for name in ("lwdetr-tiny", "detr-resnet-50")
    ]
    for one in networks:
        assert one["eager, ratio"] == pytest.approx(one["eager, ms"] / one["transformers, ms"], rel=0.05)
        assert 0 < one["share of products"] < 1.5
        assert "note" not in one
    assert run.stdout.count("\n") == 6
    table = (tmp_path / "gpu_day.md").read_text()
    assert "\n## networks\n\n| network | precision | batch |" in table


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["gpu_day", "--device", "cpu", "--quick", "--output", str(tmp_path)])
    return tmp_path


def test_what_does_not_fit_into_the_time_is_left_out(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "0"])
    assert gpu_day.main() == 0
    found = json.loads((script / "gpu_day.json").read_text())
    notes = [row["note"] for kind in ("tests", "folder", "networks") for row in found[kind]]
    assert notes == ["left out for lack of time"] * 6


def test_failures_are_rows(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such\nthing")

    for name in ("run_tests", "label_folder"):
        monkeypatch.setattr(gpu_day, name, fail)
    monkeypatch.setattr(gpu_day, "measure_network", lambda *_: {"eager, ms": 1})
    assert gpu_day.main() == 1
    found = json.loads((script / "gpu_day.json").read_text())
    assert found["tests"][0]["note"] == found["folder"][0]["note"] == "failed: ValueError: no such thing"
    assert [row["eager, ms"] for row in found["networks"]] == [1] * 4
