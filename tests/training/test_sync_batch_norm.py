"""Batch norm over the batches of all processes."""

import copy
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from detrcli.models.lwdetr import LwDetr
from detrcli.training.sync_batch_norm import SyncBatchNorm, sync_batch_norms

from .small import small_lwdetr
from .two_processes import in_two_processes

PROCESSES, BATCH = 2, 3


def projector() -> nn.Module:
    network = small_lwdetr().network
    assert isinstance(network, LwDetr)
    return network.projector.double().train()


def train_on(projector: nn.Module, images: slice) -> dict[str, Tensor]:
    """Return outputs, gradients of parameters and inputs, and statistics after two steps on different images."""
    for step in range(2):
        torch.manual_seed(step)
        maps = [torch.randn(PROCESSES * BATCH, 64, 8, 8).double() * (5 if i else 1) + 100 * i for i in range(2)]
        aims = torch.randn(PROCESSES * BATCH, 8, 8, 64).double()
        inputs = [one[images].clone().requires_grad_() for one in maps]
        (output,) = projector(inputs)
        projector.zero_grad()
        (output * aims[images]).sum().backward()
    gradients = {f"gradient of {name}": one.grad for name, one in projector.named_parameters() if one.grad is not None}
    outputs = {"output": output.detach(), **{f"input {i}": one.grad for i, one in enumerate(inputs)}}
    return {**gradients, **outputs, **projector.state_dict()}


def process(folder: str) -> None:
    distributed.init_process_group("gloo")
    rank, here = distributed.get_rank(), projector()
    sync_batch_norms(here)
    torch.save(train_on(here, slice(rank * BATCH, (rank + 1) * BATCH)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one_with_both_batches(tmp_path: Path) -> None:
    code = "from tests.training import test_sync_batch_norm as test; import sys; test.process(sys.argv[1])"
    for run in in_two_processes("-c", code, tmp_path):
        assert run.returncode == 0, run.stdout
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    for name, value in train_on(projector(), slice(None)).items():
        pieces = [part[name] for part in parts]
        if name.startswith("gradient"):
            torch.testing.assert_close(sum(pieces), value, msg=name)
        elif name.startswith(("output", "input")):
            torch.testing.assert_close(torch.cat(pieces), value, msg=name)
        else:
            for piece in pieces:
                torch.testing.assert_close(piece, value, msg=name)


def test_parameters_and_buffers_are_kept() -> None:
    network = small_lwdetr().network
    before = network.state_dict(keep_vars=True)
    sync_batch_norms(network)
    after = network.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(type(norm) is SyncBatchNorm for norm in norms)


def test_eval_mode_is_unchanged() -> None:
    plain = projector().eval()
    other = copy.deepcopy(plain)
    sync_batch_norms(other)
    maps = [torch.randn(1, 64, 8, 8).double() for _ in range(2)]
    (here,), (there,) = plain(maps), other.eval()(maps)
    assert torch.equal(here, there)
