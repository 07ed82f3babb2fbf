"""Time that each stage of a run takes."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Sum of the time that all threads spend in each stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    def __reduce__(self) -> tuple[type["Clock"], tuple[()]]:
        """Pickle as a new clock: each process sums up its own time."""
        return Clock, ()

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + taken

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds per stage, in the order in which the stages first ended."""
        with self._lock:
            return dict(self._seconds)
