"""Batch size that adapts to a device."""

import threading

MIN_SPEEDUP = 1.05
"""Speedup that a doubled batch size must yield to be kept."""
TRIALS = 3
"""Full batches that are timed per batch size, after one to warm up."""
MAX_BATCH_SIZE = 256


class BatchSize:
    """Largest batch size to use; may change while a device works. May be used by several threads.

    Args:
        start: the initial one.
        grows: whether to double it as long as that speeds the device up.
    """

    def __init__(self, start: int, *, grows: bool = False) -> None:
        self._lock = threading.Lock()
        self._current = self._best = start
        self._grows = grows
        self._best_rate = 0.0
        self._batches = 0
        self._work = self._seconds = 0.0

    @property
    def current(self) -> int:
        """The largest batch size to use now."""
        return self._current

    @property
    def settled(self) -> bool:
        """Whether no other sizes will be tried."""
        return not self._grows

    def record(self, images: int, work: float, seconds: float) -> None:
        """Record the time of a batch.

        Args:
            images: number of images in it; batches that are not full are ignored.
            work: amount of work in any unit.
            seconds: how long it took.
        """
        with self._lock:
            if not self._grows or images != self._current:
                return
            self._batches += 1
            if self._batches == 1:
                return
            self._work += work
            self._seconds += seconds
            if self._batches > TRIALS:
                self._compare(self._work / self._seconds)

    def halve(self) -> None:
        """Halve the batch size for good, since the device ran out of memory."""
        with self._lock:
            self._current = max(1, self._current // 2)
            self._grows = False

    def _compare(self, rate: float) -> None:
        faster = rate > MIN_SPEEDUP * self._best_rate
        if faster:
            self._best_rate, self._best = rate, self._current
        self._grows = faster and self._current < MAX_BATCH_SIZE
        self._current = 2 * self._current if self._grows else self._best
        self._batches, self._work, self._seconds = 0, 0.0, 0.0
