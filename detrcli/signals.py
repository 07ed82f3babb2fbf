"""Ctrl-C and SIGTERM: as exceptions, or recorded so that work in progress is finished first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Raise an exception on SIGTERM while the block runs, as on Ctrl-C, so that the block can clean up.

    A SIGTERM that is ignored, or handled outside of Python, stays so.

    Raises:
        SystemExit: on SIGTERM, with the exit code that shells report for it.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield
        return

    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """Request to stop, by Ctrl-C or SIGTERM.

    Attributes:
        signal: the first signal received, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listen(self, on_first: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Record the first signal while the block runs; a second one has its usual effect, a third kills the process.

        Ignored signals stay ignored.

        Args:
            on_first: called in the handler of the first signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
        stopping = False

        def handle_with(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
            for number in before:
                signal.signal(number, handler)

        def record(number: int, _: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            handle_with(stop)
            on_first()

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal stopping
            stopping = True
            handle_with(signal.SIG_DFL)
            usual = before[signal.Signals(number)]
            if callable(usual):
                usual(number, frame)
            else:
                signal.raise_signal(number)

        handle_with(record)
        try:
            yield
        finally:
            if not stopping:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def reraise(self) -> NoReturn:
        """Raise the exception of the recorded signal.

        Raises:
            SystemExit: on SIGTERM, with the exit code that shells report for it.
            KeyboardInterrupt: on Ctrl-C, or if another process received the signal.
        """
        if self.signal is signal.SIGTERM:
            _terminate()
        raise KeyboardInterrupt


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
