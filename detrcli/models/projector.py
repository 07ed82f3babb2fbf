"""LW-DETR's projector from the ViT's feature maps to one map per scale (Chen et al. 2024, section 3.1, figure 3)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

NormKind: TypeAlias = Literal["batch", "layer"]
EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS: Mapping[NormKind, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "layer": ChannelNorm}


class ConvNorm(nn.Sequential):
    """Convolution, norm, activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: NormKind, activation: nn.Module, *, stride: int = 1
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        super().__init__(conv, NORMS[norm](outputs), activation)


class C2f(nn.Module):
    """Block of YOLOv8: split the channels, convolve one half repeatedly, and fuse both halves and all its stages."""

    def __init__(self, inputs: int, outputs: int, depth: int, norm: NormKind) -> None:
        super().__init__()
        half = outputs // 2
        self.split = ConvNorm(inputs, 2 * half, 1, norm, nn.SiLU())
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(*(ConvNorm(half, half, 3, norm, nn.SiLU()) for _ in range(2))) for _ in range(depth)
        )
        self.join = ConvNorm((2 + depth) * half, outputs, 1, norm, nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W)."""
        parts = list(self.split(x).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return torch.as_tensor(self.join(torch.cat(parts, dim=1)))


def resampler(dim: int, scale: float, norm: NormKind, *, reduce_first: bool) -> tuple[nn.Module, int]:
    """Module that resamples a feature map to a scale (2, 1 or 0.5 of the ViT's), and its number of output channels."""
    if scale == 2 and reduce_first:
        return nn.Sequential(
            ConvNorm(dim, dim // 2, 1, norm, nn.ReLU()), nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2)
        ), dim // 4
    if scale == 2:
        return nn.Sequential(nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)), dim // 2
    if scale == 0.5:
        return nn.Sequential(ConvNorm(dim, dim, 3, norm, nn.ReLU(), stride=2)), dim
    if scale == 1:
        return nn.Sequential(), dim
    raise ValueError(f"scale must be 2, 1 or 0.5, not {scale}")


class Stage(nn.Module):
    """Resample each feature map to one scale, by a module with a number of output channels, and aggregate them."""

    def __init__(
        self, resamplers: Sequence[tuple[nn.Module, int]], hidden_dim: int, depth: int, norm: NormKind
    ) -> None:
        super().__init__()
        modules, channels = zip(*resamplers, strict=True)
        self.resamplers = nn.ModuleList(modules)
        self.c2f = C2f(sum(channels), hidden_dim, depth, norm)
        self.norm = nn.LayerNorm(hidden_dim, eps=EPS)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, D, H, W) → (B, H·scale, W·scale, hidden_dim)."""
        resampled = [resample(one) for resample, one in zip(self.resamplers, maps, strict=True)]
        x = self.c2f(torch.cat(resampled, dim=1))
        return torch.as_tensor(self.norm(x.permute(0, 2, 3, 1)))


class Projector(nn.Module):
    """One stage per scale.

    Args:
        dim: D, the channels of the ViT's feature maps.
        maps: number of these.
        hidden_dim: channels of the outputs.
        scales: size of each output relative to the ViT's maps: 2 (P3), 1 (P4) or 0.5 (P5).
        depth: convolution pairs per C2f block.
        norm: norm of each convolution: LW-DETR's over the batch, or RF-DETR's over the channels.
        reduce_first: whether a convolution halves the channels of a map before it is upsampled.
    """

    def __init__(
        self,
        dim: int,
        maps: int,
        hidden_dim: int,
        scales: Sequence[float],
        depth: int,
        norm: NormKind,
        *,
        reduce_first: bool,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for scale in scales:
            resamplers = [resampler(dim, scale, norm, reduce_first=reduce_first) for _ in range(maps)]
            self.stages.append(Stage(resamplers, hidden_dim, depth, norm))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, D, H, W) → one map (B, H·scale, W·scale, hidden_dim) per scale."""
        return [stage(maps) for stage in self.stages]
