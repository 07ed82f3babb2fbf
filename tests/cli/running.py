"""The command line in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
RUN_MAIN = """
import json, sys
from detrcli.cli import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


def detr(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "detrcli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=ONE_THREAD)


def detr_until(
    line: str, then: Callable[[subprocess.Popen[str]], object], *arguments: object, cwd: Path
) -> tuple[int, str]:
    """Run a command, and do something to it once it says a line that begins so: its exit code, and all that it says."""
    command = [sys.executable, "-m", "detrcli", *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True, env=ONE_THREAD) as process:
        assert process.stderr is not None
        said = ""
        for one in process.stderr:
            said += one
            if one.startswith(line):
                then(process)
    return process.returncode, said


def loaded(code: str, *arguments: str, cwd: Path | None = None) -> tuple[str, set[str]]:
    """What fresh Python with this code prints, and the modules it ends with."""
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, set(json.loads(run.stderr.splitlines()[-1]))
