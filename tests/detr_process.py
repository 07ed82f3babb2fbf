"""Commands and scripts in real processes that start at once: a server that has PyTorch loaded forks them.

The server itself runs nothing. What it forks behaves as what `python -m detrcli …` or `python -c …` starts: it has its
own streams, folder, environment, limits and signals, and ends as the interpreter ends. Only the seed of hashes and what
is loaded come from the server. Where the start itself is tested, `subprocess` starts a fresh interpreter.

As a program, this module is the server.
"""

import atexit
import fcntl
import gc
import importlib
import os
import pickle
import pty
import random
import re
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

SETTINGS = {"COLUMNS": "160", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TERM": "xterm"}
"""What is in the environment of each command, besides what is in that of the tests."""
PATIENCE = 120
"""Seconds that a command may take."""
PIPES: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
LOADED = (
    *("detrcli.cli.app", "detrcli.cli.report", "detrcli.detector", "detrcli.images.draw", "detrcli.inference.torch"),
    *("detrcli.outputs.run", "onnxruntime", "pydantic.type_adapter", "torch", "typer._adapters"),
    *("PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
)
"""What the server loads. None of it may start a thread, or read settings from the environment that a test changes."""
TRAINING = ("detrcli.training.loop", "matplotlib.pyplot", "pycocotools.cocoeval", "scipy.optimize")
LOADED_FOR = {
    "eval": ("pycocotools.cocoeval",),
    "export": ("onnxscript", "torch._dynamo"),
    "train": TRAINING,
    "tests.training.distributed_run": TRAINING,
}
"""What it loads besides, before the first run of a command or a module."""


class Request(NamedTuple):
    """What is to run.

    Attributes:
        arguments: those of a Python interpreter, `-m MODULE …` or `-c CODE …`.
        folder: to run in.
        environment: the whole of it.
        limits: of resources, by their number in `resource`.
        descriptors: numbers in the new process of the files that come with the request.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    limits: dict[int, int]
    descriptors: list[int]


class PythonProcess(subprocess.Popen[Any]):
    """A process like one of `subprocess.Popen`, in which Python and PyTorch are loaded already.

    Args:
        arguments: those of a Python interpreter, `-m MODULE …` or `-c CODE …`.
        limits: of resources, by their number in `resource`.
        options: `cwd`, `env`, `stdin`, `stdout`, `stderr`, `bufsize`, `text` and `pass_fds` of `subprocess.Popen`.
    """

    def __init__(self, arguments: Sequence[object], *, limits: Mapping[int, int] | None = None, **options: Any) -> None:
        self._limits = dict(limits or {})
        super().__init__([str(one) for one in arguments], **options)

    def _execute_child(
        self, arguments: list[str], _executable: Any, _preexec_fn: Any, _close_fds: Any, pass_fds: Sequence[int],
        cwd: Path | None, env: Mapping[str, str] | None, _info: Any, _flags: Any, _shell: Any,
        stdin: int, stdin_end: int, stdout_end: int, stdout: int, stderr_end: int, stderr: int, *_: Any,
    ) -> None:  # fmt: skip
        """Have the server fork what `Popen` would fork; the only step of it that differs."""
        self._end, theirs = socket.socketpair()
        standard = [number if file == -1 else file for number, file in enumerate((stdin, stdout, stderr))]
        with theirs, self._end.makefile("wb") as file:
            socket.send_fds(_server(), [b"+"], [theirs.fileno(), *standard, *pass_fds])
            environment = dict(os.environ if env is None else env)
            pickle.dump(
                Request(arguments, str(cwd or Path.cwd()), environment, self._limits, [0, 1, 2, *pass_fds]), file
            )
        self.pid = int.from_bytes(self._end.recv(8), "big")
        self._child_created = True
        self._close_pipe_fds(stdin, stdin_end, stdout_end, stdout, stderr_end, stderr)  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._end:
                self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self._end.recv(8), "big"))
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode


@cache
def _server() -> socket.socket:
    """The way to the server, which ends with the tests."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", __name__, str(theirs.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with theirs:
        server = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    server.returncode = 0  # nobody waits for it
    return ours


def detr(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; see `_run_to_its_end`."""
    return _run_to_its_end(["-m", "detrcli", *arguments], **options)


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code to its end; see `_run_to_its_end`."""
    return _run_to_its_end(["-c", code, *arguments], **options)


def start(*arguments: object, settings: Mapping[str, str] | None = None, **options: Any) -> PythonProcess:
    """Start a command with these settings in its environment; the options are those of `PythonProcess`."""
    environment = {**os.environ, **SETTINGS, **(settings or {})}
    return PythonProcess(["-m", "detrcli", *arguments], env=environment, **options)


def detr_until(line: str, then: Callable[[PythonProcess], object], *arguments: object, cwd: Path) -> tuple[int, str]:
    """Run a command, and do something to it once it says a line that begins so: its exit code, and all that it says."""
    with start(*arguments, cwd=cwd, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for one in process.stderr:
            said += one
            if one.startswith(line):
                then(process)
    return process.returncode, said


def on_a_terminal(*arguments: object, cwd: Path, settings: Mapping[str, str] | None = None) -> str:
    """What a terminal shows of a command that ends well, without colors and movements."""
    ours, theirs = pty.openpty()
    with start(
        *arguments, cwd=cwd, settings=settings, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how a terminal says that nobody writes to it any more
            while piece := os.read(ours, 65536):
                shown += piece
        assert process.wait(PATIENCE) == 0, shown
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def _run_to_its_end(
    arguments: Sequence[object], *, stdin: bytes = b"", settings: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, this on its stdin, and these settings in its environment."""
    environment = {**os.environ, **SETTINGS, **(settings or {})}
    with PythonProcess(arguments, **{"env": environment, **PIPES, **options}) as process:
        try:
            said = process.communicate(stdin, timeout=PATIENCE)
        finally:
            process.kill()
    stdout, stderr = ((text or b"").decode() for text in said)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _serve(way: socket.socket) -> Request | None:
    """Fork what is asked for; return what to run in each forked process, and None in the server when the tests end."""
    running: dict[int, socket.socket] = {}
    while True:
        if select.select([way], [], [], 0.005 if running else None)[0]:
            _, files, _, _ = socket.recv_fds(way, 1, 64)
            if not files:
                return None
            asking = socket.socket(fileno=files[0])
            with asking.makefile("rb") as file:
                request: Request = pickle.load(file)
            for argument in request.arguments[1:3]:
                _load(LOADED_FOR.get(argument, ()))
            gc.freeze()
            child = os.fork()
            if child == 0:
                _take(request, files[1:])
                return request
            running[child] = asking
            asking.sendall(child.to_bytes(8, "big"))
            for number in files[1:]:
                os.close(number)
        for child in list(running):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                with running.pop(child) as asking, suppress(BrokenPipeError):  # nobody waits for it
                    asking.sendall(status.to_bytes(8, "big"))


def _load(names: Iterable[str]) -> None:
    for name in names:
        with suppress(ImportError):  # of which the command is to tell
            importlib.import_module(name)


def _take(request: Request, files: Sequence[int]) -> None:
    """Take on what a request says this process is to have."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 256) for number in files]
    os.closerange(3, 256)
    for number, wanted in zip(moved, request.descriptors, strict=True):
        os.dup2(number, wanted)
        os.close(number)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    errors = sys.stdout.errors
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = open(  # noqa: SIM115 (as long as the process lasts)
            number,
            mode,
            buffering=1 if name == "stderr" else -1,
            encoding=sys.stdout.encoding,
            errors="backslashreplace" if name == "stderr" else errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    threads = importlib.import_module("detrcli.host").threads()
    importlib.import_module("torch").set_num_threads(threads)  # else as many as when it was loaded
    for limit, value in request.limits.items():
        resource.setrlimit(limit, (value, value))


def main() -> None:
    """Serve; in each forked process, run what was asked for."""
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and what they run
    _load(LOADED)
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        if request is not None:
            _run(request)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            codes.append(stop.code or 0)
        raise
    except KeyboardInterrupt:
        codes.append(-signal.SIGINT)
        raise
    codes.append(0)


def _run(request: Request) -> None:
    how, what, *arguments = request.arguments
    sys.path[0] = request.folder if how == "-m" else ""
    sys.argv = [how, *arguments]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})


def _leave(codes: Sequence[int]) -> None:
    """End the process with its exit code before the interpreter takes a third of a second to take itself apart."""
    with suppress(OSError, ValueError):  # the interpreter has a way to tell of them
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for code in codes:
            if code < 0:  # the interpreter forgets it if what is called at exit, such as TorchDynamo's, calls eval
                signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            os._exit(code)


if __name__ == "__main__":
    main()
