"""Batch norm over the batches of all processes."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def sync_batch_norms(network: nn.Module) -> None:
    """Replace each batch norm by one that takes its statistics from all processes, as LW-DETR's training does."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncBatchNorm(child))


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes. PyTorch's own class works on GPUs only.

    Args:
        norm: batch norm whose parameters and running statistics are taken over, under the same names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        for name, value in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), the same shape in every process → the same shape."""
        if not self.training:
            return super().forward(x)
        at_least_float32 = x.to(torch.promote_types(x.dtype, torch.float32))
        local = torch.stack(torch.var_mean(at_least_float32, (0, 2, 3), correction=0))
        variances, means = torch.as_tensor(_AllGather.apply(local)).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._update_statistics(mean.detach(), variance.detach(), count=x[:, 0].numel() * len(means))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.as_tensor(at_least_float32 * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (count / max(1, count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


class _AllGather(torch.autograd.Function):
    """Tensors of all processes, stacked by rank: (…) → (processes, …)."""

    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        gathered = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, local.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
