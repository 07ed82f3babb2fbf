"""What the README shows works as it is written there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.export.onnx import export_onnx

README = Path(__file__).parents[1] / "README.md"


def test_a_foreign_program_gets_the_same_boxes_from_an_onnx_file(tmp_path: Path) -> None:
    (script,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
        if "onnxruntime" in block
    )
    export_onnx(load_checkpoint(find("demo")), tmp_path / "lwdetr-small.onnx", source="demo")
    (tmp_path / "photo.jpg").write_bytes(sample_image().read_bytes())
    script = script.replace(
        "print(names[label], score, box)", "print(json.dumps([names[label], *map(float, [score, *box])]))"
    )
    assert "detrcli" not in script
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = sorted(json.loads(line) for line in run.stdout.splitlines())
    (detections,) = detrcli.load("demo", device="cpu", precision="fp32").predict(sample_image())
    rows = zip(detections.names, detections.scores, detections.boxes, strict=True)
    expected = sorted([name, float(score), *map(float, box)] for name, score, box in rows)
    assert len(found) == len(expected) >= 3
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[0] == theirs[0]
        assert max(abs(a - b) for a, b in zip(mine[1:], theirs[1:], strict=True)) < 0.5
