"""Completion in the shell."""

import os
import re
import subprocess
import sys

import pytest


def complete(line: str, shell: str) -> "subprocess.CompletedProcess[str]":
    """Complete the last word of a command line as the shell does; stderr lists the imported modules."""
    request = {
        "_DETR_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
    }
    command = [sys.executable, "-X", "importtime", "-m", "detrcli"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | request)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("detr predict --format co", {"coco", "coco-results"}),
        ("detr merge -f y", {"yolo"}),
        ("detr train data --model detr-resnet-50", {"detr-resnet-50", "detr-resnet-50-dc5"}),
        ("detr eval data --device c", {"cpu", "cuda"}),
    ],
)
def test_values_are_completed(line: str, values: set[str], shell: str) -> None:
    run = complete(line, shell)
    assert set(re.findall(r'"(.+?)"', run.stdout) if shell == "zsh" else run.stdout.split()) == values
    assert re.search(r"\| +detrcli\.cli\.app$", run.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|numpy|PIL|rich)$", run.stderr, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_paths_of_models_are_left_to_the_shell(shell: str) -> None:
    assert complete("detr predict --model ./", shell).stdout.strip() == ("_files" if shell == "zsh" else "")
