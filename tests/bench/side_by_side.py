"""Time two things in turn, so that whatever else the machine does hits both alike."""

import statistics
import time
from collections.abc import Callable


def times(things: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each thing over some rounds, each round running each thing once, after a round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, run in things.items():
            began = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}
