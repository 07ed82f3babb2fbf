"""Time things in turn, so that whatever else the machine does hits all alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn


def times(things: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each thing over some rounds, after one to warm up.

    In each round each thing runs twice, and the second run counts: in the first one the threads of what ran before
    still wait for more with all their might, ONNX Runtime's above all.
    """
    taken: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, run in things.items():
            run()
            began = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def inference(network: nn.Module, pixels: Tensor) -> Callable[[], object]:
    """What runs a network once, as for prediction."""

    def run() -> None:
        with torch.inference_mode():
            network(pixels)

    return run


@contextmanager
def apart(make: Callable[..., Callable[[], object]], *args: object) -> Iterator[Callable[[], None]]:
    """What `make` gives there, run in a process of its own: as its users run it, whatever this process has set."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, make, *args), daemon=True)
    process.start()
    there.close()

    def run() -> None:
        here.send("run")
        here.recv()

    here.recv()
    yield run
    here.close()
    process.join()


def _serve(connection: Connection, make: Callable[..., Callable[[], object]], *args: object) -> None:
    run = make(*args)
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        run()
        connection.send("done")
