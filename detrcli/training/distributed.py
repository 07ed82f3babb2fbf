"""Processes of a training run: one per GPU as started by `torchrun`, or a single one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ..errors import TooManyProcessesError

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=6)
"""Time for which the other processes wait while the main process evaluates."""


@dataclass(frozen=True)
class Distributed:
    """Processes of a training run, from the point of view of one of them.

    Attributes:
        rank: index of this process, from 0.
        world_size: number of processes.
        device: device of this process.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process evaluates, writes files and reports."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.world_size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.world_size

    def all_gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Distributed]:
    """Join the process group if `torchrun` started this process; each process takes the GPU of its local rank.

    Raises:
        TooManyProcessesError: there are more processes than GPUs.
    """
    launched = "LOCAL_RANK" in os.environ
    if device.type == "cuda":
        if launched:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if (device.index or 0) >= torch.cuda.device_count():
            raise TooManyProcessesError(f"there is no {device} for this process, only {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(device)
    if not launched:
        yield Distributed(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Distributed(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
