"""What the documents show works as it is written there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.cli.app import app

from .exported import Exports

ROOT = Path(__file__).parents[1]


def test_the_example_gives_the_detections_of_the_exported_model(exported: Exports, tmp_path: Path) -> None:
    text = (ROOT / "weights" / "README.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "lwdetr-small.onnx").symlink_to(exported.demo()[0])
    (tmp_path / "photo.jpg").write_bytes(sample_image().read_bytes())
    script = script.replace(
        "print(names[label], score, box)", "print(json.dumps([names[label], *map(float, [score, *box])]))"
    )
    assert "detrcli" not in script
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    printed = sorted(json.loads(line) for line in run.stdout.splitlines())
    (detections,) = detrcli.load("demo", device="cpu", precision="fp32").predict(sample_image())
    rows = zip(detections.names, detections.scores, detections.boxes, strict=True)
    expected = sorted([name, float(score), *map(float, box)] for name, score, box in rows)
    assert len(printed) == len(expected) >= 3
    for one, other in zip(printed, expected, strict=True):
        assert one[0] == other[0]
        assert max(abs(a - b) for a, b in zip(one[1:], other[1:], strict=True)) < 0.5


COMMANDS = {
    name: {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    for name, command in cast("TyperGroup", get_command(app)).commands.items()
}
DOCUMENTS = (
    "README.md",
    "weights/README.md",
    "weights/demo/README.md",
    "tests/bench/README.md",
    ".github/CONTRIBUTING.md",
)
OTHERS = {
    "--help",
    "--install-completion",
    "--group",
    "--no-deps",
    "--batch",
    "--minutes",
    "--quick",
    "--rounds",
    "--train",
    "--val",
    "--seed",
    "--slow",
    "--hub",
}
"""Options of pip, pytest and the programs in tests/."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_and_link_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8").replace("\\\n", " ")
    text = re.sub(r"## Changes in .*?(?=\n## )", "", text, flags=re.DOTALL)
    assert set(re.findall(r"--[a-z][a-z0-9-]+", text)) <= OTHERS.union(*COMMANDS.values())
    for command, arguments in re.findall(r"\bdetr ([a-z]+) ([^|`#&\n]+)", text):
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", arguments)) <= COMMANDS.get(command, set()), command
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
