"""`--log-json`: whatever happens, and whoever writes to stderr, each of its lines is a JSON object."""

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
    """What was said, line by line."""
    found = [json.loads(line) for line in stderr.splitlines()]
    assert all({"event", "text"} <= one.keys() for one in found)
    return found


def written(code: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the events of Python code that runs in a process whose stderr is JSON lines."""
    run = python(WITHIN, code)
    return run.returncode, events(run.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_every_command_complains_in_json(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    run = detr(*arguments, "--log-json", cwd=tmp_path)
    assert run.returncode == 2
    (event,) = events(run.stderr)
    assert event["event"] == "error"
    assert said in event["text"]


def test_training_and_evaluation_say_how_it_goes_in_json(tmp_path: Path) -> None:
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


def test_what_a_library_says_of_an_image_becomes_an_event(tmp_path: Path) -> None:
    """libtiff writes its complaints to file descriptor 2 itself."""
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
    assert len(complaints) == 1  # of libtiff's; else this image is of no use here
    run = detr(*arguments, "--log-json", cwd=tmp_path)
    assert run.returncode == 1
    found = [(one["event"], one["text"]) for one in events(run.stderr)]
    assert ("message", complaints[0]) in found
    assert sum(event == "error" for event, _ in found) == 1


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
def test_text_of_any_origin_becomes_events(code: str) -> None:
    status, found = written(code)
    assert status == 0
    assert any("a line" in one["text"] for one in found)
    assert {one["event"] for one in found} == {"message"}


def test_events_stay_as_they_are() -> None:
    _, found = written("""print('{"event": "summary", "text": "x", "images": 3}', file=sys.stderr)""")
    assert found == [{"event": "summary", "text": "x", "images": 3}]


def test_progress_comes_with_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("detrcli.cli.progress.INTERVAL", -1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console = Console(quiet=False, verbose=False, as_json=True)
    with show_progress(console) as progress:
        progress.update(3, 7, "evaluating")
    console.info("done", loss=float("nan"))
    going, done = events(capsys.readouterr().err)
    assert (going["event"], going["done"], going["total"]) == ("progress", 3, 7)
    assert done["loss"] is None


def test_lines_of_several_threads_stay_apart() -> None:
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
    _, found = written(code)
    assert sorted(one["text"] for one in found) == sorted(f"abc{number}" for number in range(4) for _ in range(200))


def test_a_traceback_is_lines_of_text() -> None:
    status, found = written("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()")
    assert status == 0
    assert any("Traceback" in one["text"] for one in found)
    assert "ZeroDivisionError" in found[-1]["text"]


def test_more_than_a_pipe_holds_is_written_by_one_who_keeps_the_lock_of_python() -> None:
    """As a C library may; it would wait for ever if a thread of the same process had to empty the pipe."""
    code = "import ctypes; libc = ctypes.PyDLL(None); [libc.write(2, b'x' * 99999 + b'\\n', 100000) for _ in range(20)]"
    status, found = written(code)
    assert status == 0
    assert sum(one["text"].count("x") for one in found) == 20 * 99999


def test_a_process_that_is_killed_leaves_what_was_said() -> None:
    status, found = written("os.write(2, b'last words'); os.kill(os.getpid(), 9)")
    assert status == -9
    assert [one["text"] for one in found] == ["last words"]


def test_a_child_that_goes_on_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    child = f"import time, pathlib\nwhile not pathlib.Path({str(tmp_path / 'end')!r}).exists(): time.sleep(0.01)"
    code = f"subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.DEVNULL)"
    with PythonProcess(["-c", WITHIN, code], **PIPES) as process:
        try:
            assert process.wait(60) == 0
        finally:
            (tmp_path / "end").touch()
