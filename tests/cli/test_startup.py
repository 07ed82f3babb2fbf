"""Start-up: what each command imports, and what happens when that fails."""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import detrcli.models
from detrcli import __version__
from detrcli.checkpoints.bundled import sample_image

from ..detr_process import python
from ..fresh_process import RUN_MAIN, loaded
from ..tiny import save_tiny

HEAVY = {"torch", "torchvision", "PIL", "numpy", "rich", "huggingface_hub", "safetensors", "onnxruntime"}
HEAVY |= {"openvino", "pycocotools", "yaml", "scipy", "matplotlib"}
IMPORT = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


def test_the_package_imports_nothing_heavy() -> None:
    _, modules = loaded(IMPORT, "detrcli")
    assert "detrcli" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["--version"]], ids=" ".join)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    printed, modules = loaded(RUN_MAIN, *arguments)
    assert printed == f"detr {__version__}\n" if arguments == ["--version"] else "Usage:" in printed
    assert modules & HEAVY == set()


def test_no_arguments_print_the_help_as_an_error() -> None:
    run = subprocess.run([sys.executable, "-m", "detrcli"], capture_output=True, text=True)
    assert run.returncode == 2
    output = run.stdout + run.stderr
    assert "Usage:" in output
    assert "predict" in output
    assert "models" in output
    assert "Traceback" not in output


def test_the_detector_imports_no_torch() -> None:
    _, modules = loaded(IMPORT, "detrcli.detector")
    assert "numpy" in modules
    assert modules & {"torch", "torchvision", "rich", "huggingface_hub"} == set()


def test_predicting_imports_no_other_framework(tmp_path: Path) -> None:
    from PIL import Image

    save_tiny(tmp_path / "model")
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.jpg")
    arguments = ["predict", str(tmp_path / "a.jpg"), "--model", str(tmp_path / "model"), "--device", "cpu"]
    printed, modules = loaded(RUN_MAIN, *arguments, "--output", str(tmp_path / "out"), "--format", "csv")
    assert json.loads(printed)["size"] == {"width": 64, "height": 64}
    assert (tmp_path / "out" / "a.jpg").exists()
    assert "torch" in modules
    assert modules & {"torchvision", "transformers", "timm", "scipy", "pandas", "rich", "huggingface_hub"} == set()
    assert "torch._dynamo" not in modules  # it takes longer than all of torch


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """As in an installation for ONNX files alone."""
    for arguments, module, missing in (
        (["predict", "a.jpg", "--model", "demo"], "torch", "torch"),
        (["predict", "a.jpg", "--model", "lwdetr-small"], "huggingface_hub", "huggingface-hub"),
        (["predict", "a.jpg", "--model", "org/name"], "huggingface_hub", "huggingface-hub"),
        (["models"], "huggingface_hub", "huggingface-hub"),
    ):
        (tmp_path / missing).mkdir(exist_ok=True)
        (tmp_path / missing / f"{module}.py").write_text(f"raise ModuleNotFoundError('no', name={module!r})")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / missing)}
        command = [sys.executable, "-m", "detrcli", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (run.returncode, run.stdout) == (2, "")
        assert f"`pip install {missing}`" in run.stderr
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("scipy", ["train", "images", "--output", "mine"], "train"),
        ("matplotlib", ["train", "images", "--output", "mine"], "train"),
        ("pycocotools", ["eval", "images"], "train"),
        ("onnx", ["export", "--onnx", "--model", "demo"], "export"),
        ("onnxscript", ["export", "--onnx", "--model", "demo"], "export"),
    ],
)
def test_a_missing_extra_is_named_before_any_work(
    package: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; from detrcli.cli import main; main()"
    run = python(script, *arguments, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"detr: this needs {package}; `pip install 'detrcli[{extra}]'`\n"


@pytest.mark.parametrize(
    ("module", "content", "message"),
    [
        (
            "torch",
            "raise ImportError('libx.so: failed to map segment from shared object')",
            "torch could not be loaded (libx.so: failed to map segment from shared object); free memory, or raise the "
            "limit (`ulimit -v`)",
        ),
        (
            "torch",
            "import ctypes\nctypes.CDLL('./absent.so')",
            "torch could not be loaded (./absent.so: cannot open shared object file: No such file or directory); "
            "reinstall it",
        ),
        ("torch", "raise MemoryError", "torch could not be loaded (MemoryError); free memory, or raise"),
        (
            "PIL",
            "try: import absent\nexcept ImportError as error: raise ImportError('\\nREAD THIS:\\n') from error",
            "pillow could not be loaded (No module named 'absent'); reinstall it",
        ),
        ("numpy", "raise ModuleNotFoundError('no', name='numpy')", "this needs numpy; `pip install numpy`\n"),
    ],
)
def test_a_package_that_cannot_be_loaded(tmp_path: Path, module: str, content: str, message: str) -> None:
    (tmp_path / f"{module}.py").write_text(content)
    command = [sys.executable, "-m", "detrcli", "predict", "--model", "demo", str(sample_image())]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"detr: {message}")
    assert len(run.stderr.splitlines()) == 1


def test_a_mistyped_file_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError('no', name='huggingface_hub')")
    for model, message in (
        ("absent.onnx", "no such file or folder: absent.onnx"),
        ("folder/absent.onnx", "no such file or folder: folder/absent.onnx"),
        ("absent", "no model is called 'absent'"),
    ):
        command = [sys.executable, "-m", "detrcli", "predict", "--model", model, str(sample_image())]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert run.returncode == 2
        assert run.stderr.startswith(f"detr: {message}")


def test_ctrl_c_while_it_loads(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "detrcli", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("settings", "turns"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_openmp_spinning_is_limited(settings: dict[str, str], turns: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**kept, **settings, "OMP_DISPLAY_ENV": "verbose"}
    command = [sys.executable, "-m", "detrcli", "predict", "--model", "demo", "--device", "none"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert f"GOMP_SPINCOUNT = '{turns}'" in run.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["models"]], ids=" ".join)
def test_a_full_stdout(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-m", "detrcli", *arguments], stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 2
    assert run.stderr == f"detr: cannot write stdout: {os.strerror(errno.ENOSPC)}\n".encode()


def test_closed_streams(tmp_path: Path) -> None:
    def run(script: str) -> tuple[int, str]:
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "detrcli"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    unwritable = f"detr: cannot write stdout: {os.strerror(errno.EBADF)}"
    code, message = run('"$@" predict --model demo --no-draw --quiet >&-')
    assert (code, message.partition(";")[0]) == (2, unwritable)
    for command in ("--version", "--help", "models"):
        assert run(f'"$@" {command} >&-') == (2, f"{unwritable}\n")
    assert run('"$@" merge . >&-') == (2, "detr: no shards were written into .\n")
    assert run('"$@" predict - --model demo --no-draw <&-') == (0, "the list names no images\n")
    assert run('"$@" models 2>&- >/dev/null') == (0, "")


def imports_of(source: str) -> set[str]:
    """Return the top-level names of the modules that a file imports, with dots for relative imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level or str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(Path(detrcli.models.__path__[0]).glob("*.py")), ids=lambda path: path.name)
def test_models_import_only_torch_and_one_another(path: Path) -> None:
    assert imports_of(path.read_text("utf-8")) <= {"torch", "."} | sys.stdlib_module_names
