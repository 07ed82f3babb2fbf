"""Ctrl-C and SIGTERM, noticed in the middle of some work and heeded after it, or at once but in good order."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """While this lasts, SIGTERM stops the work as Ctrl-C does, by an exception, so that it can clear things away.

    If it was ignored before, or is not Python's to handle, it stays so.

    Raises:
        SystemExit: it came; the code is what a shell gives for it.
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
    """Whether someone wants the work to stop.

    Attributes:
        signal: which signal came first, if one did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listen(self, on_first: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Only take note of the first signal; a second one has its usual effect, and a third ends the process at once.

        Signals that were ignored before stay so.

        Args:
            on_first: is called with the first one, in the signal's handler.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can ask for signals
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
        ending = False

        def handle_with(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
            for number in before:
                signal.signal(number, handler)

        def note(number: int, _: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            handle_with(end)
            on_first()

        def end(number: int, frame: FrameType | None) -> None:
            nonlocal ending
            ending = True
            handle_with(signal.SIG_DFL)
            usual = before[signal.Signals(number)]
            if callable(usual):
                usual(number, frame)
            else:
                signal.raise_signal(number)

        handle_with(note)
        try:
            yield
        finally:
            if not ending:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def reraise(self) -> NoReturn:
        """Stop as the signal asked to.

        Raises:
            SystemExit: it was SIGTERM; the code is what a shell gives for it.
            KeyboardInterrupt: it was Ctrl-C, or came to another process.
        """
        if self.signal is signal.SIGTERM:
            _terminate()
        raise KeyboardInterrupt


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
