"""Try the lowest version of each dependency that pyproject.toml allows: `python -m tests.lowest_versions DIR`.

DIR gets two environments with everything at its lower bound: one for all commands and for pytest (with the arguments
given, else `QUICK`), and one with only the dependency group `onnx`. Downloads several GB.
"""

import argparse
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK = ("tests/images", "tests/test_detections.py", "tests/cli/test_log_json.py", "tests/cli/test_export.py")
INSTALLED = ("", "train", "export", "openvino", "heif", "supervision")
"""Extras that the tests need; `""` stands for the dependencies of all."""
TOOLS = ("fonttools", "hypothesis", "pytest")
"""What they need of the extra `test`; the rest of it requires newer versions of our dependencies."""


def requirements() -> dict[str, list[str]]:
    """Requirements of the project (`""`), of each extra, and of the dependency group `onnx` (`"group onnx"`)."""
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = content["project"]
    everything = {"": project["dependencies"], **project["optional-dependencies"]}
    everything["group onnx"] = content["dependency-groups"]["onnx"]
    return {name: [one for one in listed if not one.startswith("detrcli[")] for name, listed in everything.items()}


def lowest(listed: Iterable[str]) -> list[str]:
    """Requirements with each lower bound as the only version."""
    return [requirement.replace(">=", "==") for requirement in listed]


def run(*command: object, cwd: Path = ROOT) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    print("+", *command, flush=True)
    code = subprocess.run(list(map(str, command)), cwd=cwd, env={**os.environ, "PYTHONPATH": ""}).returncode
    if code:
        sys.exit(f"{' '.join(map(str, command))} ended with {code}")


def environment(folder: Path) -> tuple[Path, list[object]]:
    """Make a virtual environment with a current pip.

    Returns:
        The folder of its programs, and the command that installs into it.
    """
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    install: list[object] = [programs / "python", "-m", "pip", "install", "--quiet"]
    run(*install, "--upgrade", "pip")
    return programs, install


def main() -> None:
    """Make both environments and run everything in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pytest", nargs="*", default=QUICK)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    listed = requirements()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lowest(one for name in INSTALLED for one in listed[name])) + "\n", "utf-8")

    programs, install = environment(folder / "all")
    tools = lowest(one for one in listed["test"] if one.startswith(TOOLS))
    run(*install, "--constraint", constraints, f"{ROOT}[{','.join(filter(None, INSTALLED))}]", *tools)
    run(programs / "python", "-m", "pip", "check")
    for name in listed.keys() - INSTALLED:  # do the other extras' versions exist, and fit together?
        run(*install, "--dry-run", *(() if name == "test" else ("--constraint", constraints)), *lowest(listed[name]))
    detr, place = programs / "detr", folder / "place"
    place.mkdir(exist_ok=True)
    run(detr, "--help", cwd=place)
    run(detr, "predict", "--model", "demo", "--format", "coco", "--format", "csv", cwd=place)
    run(detr, "export", "--onnx", "--model", "demo", "demo.onnx", cwd=place)
    engines = ("--engine", "onnxruntime", "--engine", "openvino")
    run(detr, "bench", "demo", "demo.onnx", *engines, "--iterations", "1", cwd=place)
    run(programs / "python", "-m", "pytest", *arguments.pytest)

    programs, install = environment(folder / "onnx")
    constraints = folder / "onnx-constraints.txt"
    constraints.write_text("\n".join(lowest(listed["group onnx"])) + "\n", "utf-8")
    run(*install, "--constraint", constraints, "--group", "onnx")
    run(*install, "--no-deps", ROOT)
    run(programs / "detr", "predict", "detections/sample.jpg", "--model", "demo.onnx", "--output", "onnx", cwd=place)


if __name__ == "__main__":
    main()
