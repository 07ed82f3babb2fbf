"""The processes of one training, as `torchrun` starts them: one a GPU, or a single one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ..errors import DeviceError

Value = TypeVar("Value")

PATIENCE = timedelta(hours=6)
"""How long the others wait while the first evaluates."""


@dataclass(frozen=True)
class Distributed:
    """All processes of a training, seen from one of them.

    Attributes:
        rank: this one, from 0.
        count: how many there are.
        device: what this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one that evaluates, writes and talks."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.count == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.count

    def gathered(self, value: Value) -> list[Value]:
        """What every process has, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Distributed]:
    """Join the other processes if `torchrun` started this one; each takes the GPU of its local rank.

    Raises:
        DeviceError: there are more processes than GPUs.
    """
    launched = "LOCAL_RANK" in os.environ
    if device.type == "cuda":
        if launched:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(
                f"there is no {device} for this process; give torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(device)
    if not launched:
        yield Distributed(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Distributed(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
