"""`--log-json`: every line on stderr is a JSON object, whoever writes it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detrcli.cli.console import Console
from detrcli.cli.progress import show_progress

from ..datasets.written import as_coco, write_image, write_json
from ..detr_process import PIPES, PythonProcess, detr, python
from ..tiny import save_tiny

WITHIN = """
import os, subprocess, sys
from detrcli.cli.json_lines import json_stderr
with json_stderr():
    exec(sys.argv[1])
"""


def events(stderr: str) -> list[dict[str, Any]]:
    """Return the events of all lines."""
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert all({"event", "text"} <= one.keys() for one in lines)
    return lines


def run_code(code: str) -> tuple[int, list[dict[str, Any]]]:
    """Run Python code in a process whose stderr is JSON lines, and return its exit code and events."""
    run = python(WITHIN, code)
    return run.returncode, events(run.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "absent.jpg", "--no-such"), "No such option"),
        (("predict",), "name at least one image"),
        (("train",), "Missing argument 'DATASET'"),
        (("train", "absent", "--output", "mine"), "absent"),
        (("eval", "absent"), "absent"),
        (("export", "--onnx", "--model", "absent"), "no model is called 'absent'"),
        (("bench", "absent"), "no model is called 'absent'"),
        (("merge", "absent"), "no shards were written into absent"),
        (("models", "unwanted"), "unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_of_every_command_are_json(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    run = detr(*arguments, "--log-json", cwd=tmp_path)
    assert run.returncode == 2
    (event,) = events(run.stderr)
    assert event["event"] == "error"
    assert message in event["text"]


def test_progress_of_training_and_evaluation_is_json(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", num_classes=2)
    for split in ("train", "val"):
        write_image(tmp_path / "data" / split / "a.png")
        boxes = {"a.png": [(0, (2, 2, 20, 20)), (1, (10, 10, 30, 30))]}
        write_json(tmp_path / "data" / split / "_annotations.coco.json", as_coco(boxes, ("cat", "dog")))
    options = ("--log-json", "--device", "cpu", "--image-size", "64")
    trained = detr("train", "data", "--model", "model", "--output", "mine", "--epochs", 1, *options, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (epoch,) = (one for one in events(trained.stderr) if one["event"] == "progress")
    assert epoch["epoch"] == 1
    assert epoch["loss"] > 0
    judged = detr("eval", "data", "--model", "mine", *options, cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr
    assert any("mine" in one["text"] for one in events(judged.stderr))
    json.loads(judged.stdout)


def test_warnings_of_libtiff_become_events(tmp_path: Path) -> None:
    """libtiff writes to file descriptor 2 itself."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "TIFF", compression="tiff_lzw")
    damaged = bytearray(buffer.getvalue())
    for place in range(300, len(damaged) - 300, 97):
        damaged[place] ^= 0xFF
    (tmp_path / "damaged.tif").write_bytes(damaged)
    arguments = ("predict", "damaged.tif", "--model", "demo", "--no-draw")
    plain = detr(*arguments, cwd=tmp_path).stderr.splitlines()
    complaints = [line for line in plain if not line.startswith("detr: ") and "1 failed" not in line]
    assert len(complaints) == 1  # libtiff's, or the image tests nothing
    run = detr(*arguments, "--log-json", cwd=tmp_path)
    assert run.returncode == 1
    lines = [(one["event"], one["text"]) for one in events(run.stderr)]
    assert ("message", complaints[0]) in lines
    assert sum(event == "error" for event, _ in lines) == 1


@pytest.mark.parametrize(
    "code",
    [
        "os.write(2, b'a line\\n')",
        "os.write(2, b'no line end'); print('a line', file=sys.stderr)",
        "subprocess.run(['sh', '-c', 'echo a line >&2'])",
        "print('a', end=' ', file=sys.stderr); print('line', file=sys.stderr)",
        "import warnings; warnings.warn('a line')",
        "os.write(2, b'a bar\\ra line\\r\\n')",
        "os.write(2, b'\\xff\\xfe a line\\n')",
        "print('\\ud800 a line', file=sys.stderr)",
    ],
)
def test_any_text_becomes_events(code: str) -> None:
    status, lines = run_code(code)
    assert status == 0
    assert any("a line" in one["text"] for one in lines)
    assert {one["event"] for one in lines} == {"message"}


def test_events_are_passed_on_unchanged() -> None:
    _, lines = run_code("""print('{"event": "summary", "text": "x", "images": 3}', file=sys.stderr)""")
    assert lines == [{"event": "summary", "text": "x", "images": 3}]


def test_progress_has_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("detrcli.cli.progress.INTERVAL", -1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console = Console(quiet=False, verbose=False, as_json=True)
    with show_progress(console) as progress:
        progress.update(3, 7, "evaluating")
    console.info("done", loss=float("nan"))
    going, done = events(capsys.readouterr().err)
    assert (going["event"], going["done"], going["total"]) == ("progress", 3, 7)
    assert done["loss"] is None


def test_lines_of_threads_do_not_mix() -> None:
    code = """
import threading
def write(number):
    for _ in range(200):
        for letter in 'abc' + str(number) + chr(10):
            sys.stderr.write(letter)
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
sys.setswitchinterval(1e-6)
[one.start() for one in threads]
[one.join() for one in threads]
"""
    _, lines = run_code(code)
    assert sorted(one["text"] for one in lines) == sorted(f"abc{number}" for number in range(4) for _ in range(200))


def test_tracebacks_become_events() -> None:
    status, lines = run_code("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()")
    assert status == 0
    assert any("Traceback" in one["text"] for one in lines)
    assert "ZeroDivisionError" in lines[-1]["text"]


def test_a_library_may_fill_the_pipe_while_it_holds_the_gil() -> None:
    """It would wait forever if a thread of the same process had to empty the pipe."""
    code = "import ctypes; libc = ctypes.PyDLL(None); [libc.write(2, b'x' * 99999 + b'\\n', 100000) for _ in range(20)]"
    status, lines = run_code(code)
    assert status == 0
    assert sum(one["text"].count("x") for one in lines) == 20 * 99999


def test_events_of_a_killed_process_are_kept() -> None:
    status, lines = run_code("os.write(2, b'last words'); os.kill(os.getpid(), 9)")
    assert status == -9
    assert [one["text"] for one in lines] == ["last words"]


def test_a_process_ends_before_its_children(tmp_path: Path) -> None:
    running = tmp_path / "running"
    running.touch()
    child = f"import time, pathlib\nwhile pathlib.Path({str(running)!r}).exists(): time.sleep(0.01)"
    code = f"subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.DEVNULL)"
    with PythonProcess(["-c", WITHIN, code], **PIPES) as process:
        try:
            assert process.wait(60) == 0
        finally:
            running.unlink()
