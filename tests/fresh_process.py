"""Fresh interpreters, for tests of what is loaded."""

import json
import subprocess
import sys
from pathlib import Path

RUN_MAIN = """
import json, sys
from detrcli.cli import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


def loaded(code: str, *arguments: str, cwd: Path | None = None) -> tuple[str, set[str]]:
    """What fresh Python with this code prints, and the modules it ends with."""
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, set(json.loads(run.stderr.splitlines()[-1]))
