"""Try the lowest version of each dependency that pyproject.toml allows: `python -m tests.lowest_versions DIR`.

Two environments are made in DIR: one with everything at its lower bound, which runs the commands and then pytest (with
the arguments given, else `QUICK`), and one with only what README.md says an ONNX file needs. Downloads several GB.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = (
    *("tests/images", "tests/test_draw.py", "tests/test_detections.py"),
    *("tests/cli/test_log_json.py", "tests/cli/test_export.py"),
)
RUNNERS = ("pytest", "hypothesis")
"""What the tests that run here need of the extra `test`; its peers and checkers need newer packages of ours."""
EXTRAS = ("heif", "supervision")
"""What those tests need besides."""


def project() -> dict[str, list[str]]:
    """The project's requirements: those of all (`""`), and those of each extra."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def lowest(requirements: list[str]) -> list[str]:
    """The same requirements with each lower bound as the only version."""
    return [requirement.replace(">=", "==") for requirement in requirements]


def without_torch() -> list[str]:
    """What README.md says to install where a model is an ONNX file."""
    (line,) = re.findall(
        r"^pip install --no-deps \. && pip install (.*)$", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    return [requirement.strip("'") for requirement in line.split()]


def run(*command: object, cwd: Path = ROOT) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    print("+", *command, flush=True)
    code = subprocess.run(list(map(str, command)), cwd=cwd, env={**os.environ, "PYTHONPATH": ""}).returncode
    if code:
        sys.exit(f"{' '.join(map(str, command))} ended with {code}")


def environment(folder: Path, *arguments: object) -> Path:
    """Make an environment, and install into it.

    Returns:
        The folder of its programs.
    """
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", *arguments)
    return programs


def main() -> None:
    """Make both environments and run everything in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pytest", nargs="*", default=QUICK)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    requirements = project()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lowest(requirements[""])) + "\n", "utf-8")
    needed = [one for one in requirements["test"] if one.startswith(RUNNERS)]
    needed += [one for extra in EXTRAS for one in requirements[extra]]

    programs = environment(folder / "all", "--constraint", constraints, ROOT, *lowest(needed))
    run(programs / "python", "-m", "pip", "check")
    for extra in requirements.keys() - {""}:  # that there are such versions, and that they go together
        pins = lowest(requirements[extra])
        given = () if extra == "test" else ("--constraint", constraints)
        run(programs / "python", "-m", "pip", "install", "--quiet", "--dry-run", *given, *pins)
    detr, place = programs / "detr", folder / "place"
    place.mkdir(exist_ok=True)
    run(detr, "--help", cwd=place)
    run(detr, "predict", "--model", "demo", "--format", "coco", "--format", "csv", cwd=place)
    run(detr, "export", "--onnx", "--model", "demo", "demo.onnx", cwd=place)
    run(detr, "bench", "demo", "demo.onnx", "--rounds", "1", cwd=place)
    run(programs / "python", "-m", "pytest", *arguments.pytest)

    lean = environment(folder / "lean", *lowest(without_torch()))
    run(lean / "python", "-m", "pip", "install", "--quiet", "--no-deps", ROOT)
    run(lean / "detr", "predict", "detections/sample.jpg", "--model", "demo.onnx", "--output", "lean", cwd=place)


if __name__ == "__main__":
    main()
