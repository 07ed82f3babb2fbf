"""Two processes of one training run, as `torchrun` starts them but with PyTorch loaded already."""

import os
import socket
import subprocess
from pathlib import Path

from ..detr_process import PATIENCE, SETTINGS, PythonProcess

ROOT = Path(__file__).parents[2]


def in_two_processes(*arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """Run Python with these arguments in two processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        PythonProcess(
            arguments,
            cwd=ROOT,
            env={**os.environ, **SETTINGS, **address, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, text)
        for process, text in zip(processes, said, strict=True)
    ]
