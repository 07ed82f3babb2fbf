"""From the ViT's feature maps to one map a scale: resampling, aggregation and a C2f block (section 3.1, figure 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPS = 1e-6


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, activation: nn.Module, *, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), activation)


class C2f(nn.Module):
    """YOLOv8's block: a projection whose halves, and each further convolution of one of them, are joined and mixed."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.split = ConvNorm(inputs, 2 * half, 1, nn.SiLU())
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, 3, nn.SiLU()), ConvNorm(half, half, 3, nn.SiLU())) for _ in range(depth)
        )
        self.join = ConvNorm((2 + depth) * half, outputs, 1, nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W)."""
        parts = list(self.split(x).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return torch.as_tensor(self.join(torch.cat(parts, dim=1)))


def resampler(dim: int, scale: float) -> tuple[nn.Module, int]:
    """What brings one feature map to a scale (2, 1 or ½ of the ViT's), and its number of channels then."""
    if scale == 2 and dim > 512:
        return nn.Sequential(
            ConvNorm(dim, dim // 2, 1, nn.ReLU()), nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2)
        ), dim // 4
    if scale == 2:
        return nn.Sequential(nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)), dim // 2
    if scale == 0.5:
        return nn.Sequential(ConvNorm(dim, dim, 3, nn.ReLU(), stride=2)), dim
    if scale == 1:
        return nn.Sequential(), dim
    raise ValueError(f"no way to a scale of {scale}")


class Stage(nn.Module):
    """All feature maps joined at one scale."""

    def __init__(self, dim: int, maps: int, hidden_dim: int, scale: float, depth: int) -> None:
        super().__init__()
        resamplers, channels = zip(*(resampler(dim, scale) for _ in range(maps)), strict=True)
        self.resamplers = nn.ModuleList(resamplers)
        self.c2f = C2f(sum(channels), hidden_dim, depth)
        self.norm = nn.LayerNorm(hidden_dim, eps=EPS)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, D, H, W) → (B, H·scale, W·scale, hidden_dim)."""
        resampled = [resample(one) for resample, one in zip(self.resamplers, maps, strict=True)]
        x = self.c2f(torch.cat(resampled, dim=1))
        return torch.as_tensor(self.norm(x.permute(0, 2, 3, 1)))


class Projector(nn.Module):
    """One stage a scale.

    Args:
        dim: channels of each of the ViT's maps.
        maps: how many there are.
        hidden_dim: channels of the outputs.
        scales: size of each output relative to the ViT's maps: 2 (P3), 1 (P4) or 0.5 (P5).
        depth: convolution pairs in each C2f block.
    """

    def __init__(self, dim: int, maps: int, hidden_dim: int, scales: Sequence[float], depth: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(dim, maps, hidden_dim, scale, depth) for scale in scales)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, D, H, W) → one (B, H·scale, W·scale, hidden_dim) a scale."""
        return [stage(maps) for stage in self.stages]
