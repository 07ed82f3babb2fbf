"""Timing of functions in turn, and in processes of their own."""

import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from detrcli.cli.benchmark import time_in_turn


def medians(runs: dict[str, Callable[[], object]], iterations: int) -> dict[str, float]:
    """Median seconds of each function; see `time_in_turn`."""
    return {name: statistics.median(seconds) for name, seconds in time_in_turn(runs, iterations, warmup=1).items()}


def inference(network: nn.Module, pixels: Tensor) -> Callable[[], object]:
    """Function that runs a network once, in inference mode."""

    def run() -> None:
        with torch.inference_mode():
            network(pixels)

    return run


@contextmanager
def in_own_process(make: Callable[..., Callable[[], object]], *args: object) -> Iterator[Callable[[], None]]:
    """Function that calls the result of `make(*args)` in another process, so that settings of this one do not matter.

    Args:
        make: is called once, in the other process.
        args: for `make`.
    """
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
