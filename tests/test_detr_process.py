"""The harness of the other tests: what the server forks is as a fresh interpreter would be."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .detr_process import PIPES, PythonProcess, detr, on_a_terminal, python, start


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('done')", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('told')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import atexit; atexit.register(print, 'last')", 0),
        ("import atexit, os; atexit.register(os._exit, 3)", 3),
        ("import sys; sys.stdout = open('/dev/full', 'w'); print('lost')", 120),
        ("import threading; threading.Timer(0.1, print, ['waited for']).start()", 0),
    ],
)
def test_it_ends_as_a_fresh_interpreter(code: str, expected: int, tmp_path: Path) -> None:
    fresh = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    forked = python(code, cwd=tmp_path)
    assert forked.returncode == fresh.returncode == expected
    assert forked.stdout == fresh.stdout
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


SEEN = """
import os, resource, sys
print(sys.argv[1:], os.getcwd(), os.environ["OURS"], os.environ.get("OMP_NUM_THREADS"))
print(sys.stdin.read(), sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
print(resource.getrlimit(resource.RLIMIT_FSIZE)[0], sys.stdout.isatty())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for open files in /proc")
def test_it_has_its_own_surroundings(tmp_path: Path) -> None:
    run = python(
        SEEN, "a", "b c", cwd=tmp_path, stdin=b"given", settings={"OURS": "1"}, limits={resource.RLIMIT_FSIZE: 1000}
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"['a', 'b c'] {tmp_path} 1 1", "given [0, 1, 2]", "1000 False"]


def test_nothing_of_one_reaches_another(tmp_path: Path) -> None:
    code = "import os, sys, torch; print(hasattr(torch, 'mine'), os.environ.get('MINE')); torch.mine = True"
    for _ in range(2):
        assert python(f"{code}; os.environ['MINE'] = '1'", cwd=tmp_path).stdout == "False None\n"


ECHO = """
import sys
for line in sys.stdin:
    print(line, end="", flush=True)
"""


def test_signals_and_pipes(tmp_path: Path) -> None:
    with PythonProcess(["-c", ECHO], cwd=tmp_path, **PIPES) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(b"a line\n")
        one.stdin.flush()
        assert one.stdout.readline() == b"a line\n"
        assert one.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.01)
        assert Path(f"/proc/{one.pid}").exists() or sys.platform != "linux"
        one.send_signal(signal.SIGTERM)
        assert one.communicate(timeout=60) == (b"", b"")
    assert one.returncode == one.poll() == -signal.SIGTERM


def test_a_command_runs_in_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"absent.jpg\n")
    os.close(writing)
    with start(
        "predict", "--files-from", f"/dev/fd/{reading}", "--model", "demo", cwd=tmp_path, pass_fds=[reading]
    ) as one:
        assert one.wait(60) == 1
    os.close(reading)
    run = detr("--version", cwd=tmp_path)
    assert (run.returncode, run.stdout.split()[0], run.stderr) == (0, "detr", "")
    assert on_a_terminal("--version", cwd=tmp_path) == run.stdout
