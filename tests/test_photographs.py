"""Real photographs through the command line, if they are present."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .detr_process import detr
from .places import PHOTOGRAPHS
from .tiny import QUERIES, save_tiny

pytestmark = pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the photographs are not present")


def predict(model: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    options = (*options, "--threshold", "0", "--device", "cpu", "--precision", "fp32", "--output", str(output))
    run = detr("predict", PHOTOGRAPHS, "--model", model, *options)
    assert run.returncode == 0, run.stderr
    assert "failed" not in run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_every_photograph_has_its_outputs(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    model.mkdir()
    save_tiny(model)
    names = sorted(path.name for path in PHOTOGRAPHS.iterdir())
    assert len(names) == 128

    alone = predict(model, output, "--batch-size", "1", "--format", "json", "--format", "csv")
    assert [Path(record["path"]).name for record in alone] == names
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [".detr", *names, *(f"{name}.json" for name in names), "detections.csv"]
    )
    assert [json.loads((output / f"{name}.json").read_text()) for name in names] == alone

    together = predict(model, output, "--batch-size", "8", "--no-draw")
    for one, other in zip(alone, together, strict=True):
        ours, theirs = one["detections"], other["detections"]
        assert len(ours) == QUERIES
        assert [found["label_id"] for found in ours] == [found["label_id"] for found in theirs]
        np.testing.assert_allclose(
            [found["box"] for found in ours], [found["box"] for found in theirs], rtol=0, atol=1e-3
        )
