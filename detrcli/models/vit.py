"""Plain ViT with interleaved window and global attention: LW-DETR's encoder (Chen et al. 2024, section 3.1)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import at_least_float32

PATCH = 16
"""Side of a patch in pixels."""
WINDOWS = 4
"""Every feature map is divided into 4 × 4 windows, whatever its size."""
EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: D, the width.
        heads: number of attention heads.
        windows: number of windows that tokens attend within; 1 is global attention.
        key_bias: whether keys have a bias, to which softmax is invariant.
    """

    def __init__(self, dim: int, heads: int, *, windows: int, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.windows = windows
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=key_bias)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, D), window by window → the same shape."""
        query, key, value = (
            part(x).view(x.shape[0] * self.windows, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return torch.as_tensor(self.output(mixed.transpose(1, 2).reshape(x.shape)))


class LayerScale(nn.Module):
    """Learned scale per channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → the same shape."""
        return x * self.weight


class PositionEmbedding(nn.Module):
    """Learned positions of a square grid of patches, and of an unused class token."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(torch.zeros(1, 1 + side**2, dim))

    def forward(self, height: int, width: int) -> Tensor:
        """Positions resized to a grid: (1, height, width, D)."""
        grid = self.weight[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        resized = F.interpolate(grid.to(at_least_float32(grid.dtype)), (height, width), mode="bicubic")
        return resized.permute(0, 2, 3, 1).to(grid.dtype)


class PatchEmbedding(nn.Module):
    """Linear projection of patches plus their positions."""

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, PATCH, stride=PATCH)
        self.positions = PositionEmbedding(dim, positions)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) → tokens (B, H·W/16², D), window by window."""
        x = self.patches(pixels).permute(0, 2, 3, 1)
        return to_windows(x + self.positions(*x.shape[1:3]), WINDOWS)


class Block(nn.Module):
    """Pre-norm transformer layer with LayerScale, within windows or over the whole image."""

    def __init__(self, dim: int, heads: int, *, windows: int, key_bias: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attention: nn.Module = SelfAttention(dim, heads, windows=windows, key_bias=key_bias)
        self.scale1: nn.Module = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.feedforward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scale2: nn.Module = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, D), window by window → the same shape."""
        x = x + self.scale1(self.attention(self.norm1(x)))
        return torch.as_tensor(x + self.scale2(self.feedforward(self.norm2(x))))


class ViT(nn.Module):
    """ViT that returns the feature maps of several blocks.

    Tokens are ordered window by window from the first block to the last, so that window attention is a mere view.

    Args:
        dim: D, the width.
        heads: number of attention heads.
        depth: number of blocks.
        window_blocks: indices of the blocks that attend within windows.
        features: indices of the blocks whose outputs are returned.
        positions: side of the grid of learned positions.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        depth: int,
        window_blocks: Collection[int],
        features: Collection[int],
        positions: int,
    ) -> None:
        super().__init__()
        self.features = frozenset(features)
        self.embedding: nn.Module = PatchEmbedding(dim, positions)
        self.blocks = nn.ModuleList(
            Block(dim, heads, windows=WINDOWS**2 if index in window_blocks else 1) for index in range(depth)
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalized pixels (B, 3, H, W), sides multiples of 64 → feature maps (B, D, H/16, W/16), shallow to deep."""
        if pixels.shape[-2] % (PATCH * WINDOWS) or pixels.shape[-1] % (PATCH * WINDOWS):
            raise ValueError(f"sides must be multiples of {PATCH * WINDOWS}, not {tuple(pixels.shape[-2:])}")
        height, width = pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH
        x = self.embedding(pixels)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.features:
                maps.append(from_windows(x, height, width, WINDOWS))
        return maps


def to_windows(x: Tensor, windows: int) -> Tensor:
    """Feature map (B, H, W, D) → tokens (B, H·W, D), window by window, `windows` in each direction."""
    batch, height, width, dim = x.shape
    x = x.view(batch, windows, height // windows, windows, width // windows, dim)
    return x.transpose(2, 3).reshape(batch, height * width, dim)


def from_windows(x: Tensor, height: int, width: int, windows: int) -> Tensor:
    """Tokens (B, H·W, D), window by window → feature map (B, D, H, W), channels last in memory."""
    batch, _, dim = x.shape
    x = x.view(batch, windows, windows, height // windows, width // windows, dim)
    return x.transpose(2, 3).reshape(batch, height, width, dim).permute(0, 3, 1, 2)
