"""How many images a device looks at at once."""

import threading

GROWS_FROM = 1.05
"""How many times faster twice the images must be to be worth it."""
TRIALS = 3
"""Full batches by which a size is judged, after one that does not count."""
MOST = 256


class BatchSize:
    """The most images at once; it may change while a device works.

    Args:
        start: the most at first.
        grows: whether to double it as long as that makes the device faster.
    """

    def __init__(self, start: int, *, grows: bool = False) -> None:
        self._lock = threading.Lock()
        self._most = self._best = start
        self._grows = grows
        self._rate = 0.0
        self._seen = 0
        self._work = self._seconds = 0.0

    @property
    def most(self) -> int:
        """The most images at once, now."""
        return self._most

    def note(self, images: int, work: float, seconds: float) -> None:
        """Learn how long a batch took.

        Args:
            images: how many there were; a batch that was not full tells nothing.
            work: how much there was to do, in any unit.
            seconds: how long it took.
        """
        with self._lock:
            if not self._grows or images != self._most:
                return
            self._seen += 1
            if self._seen == 1:
                return
            self._work += work
            self._seconds += seconds
            if self._seen > TRIALS:
                self._judge(self._work / self._seconds)

    def halve(self) -> None:
        """Take at most half as many from now on: the device's memory was too small."""
        with self._lock:
            self._most = max(1, self._most // 2)
            self._grows = False

    def _judge(self, rate: float) -> None:
        faster = rate > GROWS_FROM * self._rate
        if faster:
            self._rate, self._best = rate, self._most
        self._grows = faster and self._most < MOST
        self._most = 2 * self._most if self._grows else self._best
        self._seen, self._work, self._seconds = 0, 0.0, 0.0
