"""The command line: it parses, calls `Detector`, and shows what came of it."""

import errno
import os
import sys
from contextlib import nullcontext
from typing import NoReturn

from ..errors import DetrError
from ..files import FULL
from ..waiting import wait_briefly
from .console import Talk, give_up_stdout
from .exit_codes import INTERRUPTED, SOME_FAILED, UNUSABLE
from .json_lines import json_stderr

PACKAGES = {
    "fsspec": "fsspec",
    "huggingface_hub": "huggingface-hub",
    "matplotlib": "matplotlib",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "pycocotools": "pycocotools",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "torch": "torch",
    "torchvision": "torchvision",
    "yaml": "pyyaml",
}
"""What an installation that only predicts with ONNX Runtime lacks, and what pip calls it."""


def main() -> None:
    """Run the command line and exit with one of the codes in `exit_codes`."""
    _open_what_is_closed()
    wait_briefly()
    as_json = "--log-json" in sys.argv
    with json_stderr() if as_json else nullcontext():
        _run(Talk(quiet=False, verbose=False, as_json=as_json))


def _run(talk: Talk) -> NoReturn:
    try:
        try:
            from .app import run  # takes a moment, in which Ctrl-C may come

            run(talk)
        except SystemExit:
            sys.stdout.flush()
            raise
    except DetrError as error:
        talk.complain(str(error))
        sys.exit(UNUSABLE)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        cure = f"`pip install {PACKAGES[package]}`, or name a model that `detr export` wrote"
        talk.complain(f"this needs {package}; {cure}")
        sys.exit(UNUSABLE)
    except OSError as error:
        # what is written elsewhere fails with an error of ours, so this is of stdout
        if error.errno not in (errno.EPIPE, errno.EIO, *FULL) or error.filename is not None:
            raise
        give_up_stdout()
        if error.errno == errno.EPIPE:
            sys.exit(SOME_FAILED)
        talk.complain(f"cannot write stdout: {error.strerror}")
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _open_what_is_closed() -> None:
    """Stand in for the standard streams that whoever began the process has closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it stays open as long as the process lasts)
