"""Handling of Ctrl-C and SIGTERM."""

import signal

from .detr_process import python

HEAD = """
import signal, sys
from pathlib import Path
from detrcli.files import atomic_file
from detrcli.signals import Interruption, sigterm_as_exception

def interrupt():
    signal.raise_signal(signal.SIGINT)

sys.stdout.reconfigure(line_buffering=True)
interruption = Interruption()
"""


def outcome(script: str) -> tuple[int, list[str]]:
    """Exit code and printed words of a script in a process of its own."""
    run = python(HEAD + script)
    return run.returncode, run.stdout.split()


def test_second_signal_interrupts_and_third_kills() -> None:
    script = """
try:
    with interruption.listen(lambda: print("first")):
        interrupt()
        interrupt()
        print("never")
except KeyboardInterrupt:
    print("second")
    interrupt()
print("never")
"""
    assert outcome(script) == (-signal.SIGINT, ["first", "second"])


def test_handlers_are_restored_after_one_signal() -> None:
    script = """
with interruption.listen():
    interrupt()
    print(interruption.signal.name)
try:
    interrupt()
except KeyboardInterrupt:
    print("after")
"""
    assert outcome(script) == (0, ["SIGINT", "after"])


def test_ignored_sigint_stays_ignored() -> None:
    script = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interruption.listen():
    interrupt()
interrupt()
print(interruption.signal)
"""
    assert outcome(script) == (0, ["None"])


def test_second_sigterm_terminates() -> None:
    script = """
with interruption.listen(lambda: print("first")):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
print("never")
"""
    assert outcome(script) == (-signal.SIGTERM, ["first"])


def test_sigterm_leaves_no_unfinished_file() -> None:
    script = """
import tempfile
folder = Path(tempfile.mkdtemp())
try:
    with sigterm_as_exception(), atomic_file(folder / "whole"):
        print(len(list(folder.iterdir())))
        signal.raise_signal(signal.SIGTERM)
        print("never")
finally:
    print(len(list(folder.iterdir())), signal.getsignal(signal.SIGTERM).name)
    folder.rmdir()
"""
    assert outcome(script) == (128 + signal.SIGTERM, ["1", "0", "SIG_DFL"])


def test_ignored_sigterm_stays_ignored() -> None:
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with sigterm_as_exception():
    signal.raise_signal(signal.SIGTERM)
print("done")
"""
    assert outcome(script) == (0, ["done"])
