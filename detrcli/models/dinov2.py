"""DINOv2 (Oquab et al. 2024) with windowed and global attention: RF-DETR's backbone."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import at_least_float32
from .vit import EPS, Block, PositionEmbedding, from_windows, to_windows


class AntialiasedPositions(PositionEmbedding):
    """Learned positions of the class token and of a square grid of patches."""

    def forward(self, height: int, width: int) -> Tensor:
        """Return the positions of a grid of patches, resized unless it is the learned one: (1, height, width, D)."""
        grid: Tensor = self.weight[:, 1:].unflatten(1, (self.side, self.side))
        if height == width == self.side:
            return grid
        wide = grid.permute(0, 3, 1, 2).to(at_least_float32(grid.dtype))
        resized: Tensor = F.interpolate(wide, (height, width), mode="bicubic", antialias=True)
        return resized.permute(0, 2, 3, 1).to(grid.dtype)

    def of_class_token(self) -> Tensor:
        """Return the position of the class token: (1, 1, D)."""
        return self.weight[:, :1]


class WindowEmbedding(nn.Module):
    """Linear projection of patches plus their positions, and a class token in every window."""

    mask_token: Tensor

    def __init__(self, dim: int, patch: int, windows: int, positions: int) -> None:
        super().__init__()
        self.windows = windows
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("mask_token", torch.zeros(1, dim))  # of the pretraining; in all published files
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.positions = AntialiasedPositions(dim, positions)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) → tokens (B, windows² + H·W/patch², D), window by window, class token first."""
        x = self.patches(pixels).permute(0, 2, 3, 1)
        x = to_windows(x + self.positions(*x.shape[1:3]), self.windows).unflatten(1, (self.windows**2, -1))
        class_token = self.class_token + self.positions.of_class_token()
        return torch.cat((class_token.expand(*x.shape[:2], 1, -1), x), dim=2).flatten(1, 2)


class DinoV2(nn.Module):
    """DINOv2 that returns the normed feature maps of several blocks.

    Tokens are ordered window by window, each with its own copy of the class token. Blocks with global attention see all
    copies.

    Args:
        dim: D, the width.
        heads: number of attention heads.
        depth: number of blocks.
        window_blocks: indices of the blocks that attend within windows.
        features: indices of the blocks whose outputs are returned; later blocks are not run.
        positions: side of the grid of learned positions.
        patch: side of a patch in pixels.
        windows: number of windows in each direction.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        depth: int,
        window_blocks: Collection[int],
        features: Collection[int],
        positions: int,
        *,
        patch: int,
        windows: int,
    ) -> None:
        super().__init__()
        self.features = frozenset(features)
        self.patch, self.windows = patch, windows
        self.embedding: nn.Module = WindowEmbedding(dim, patch, windows, positions)
        self.blocks = nn.ModuleList(
            Block(dim, heads, windows=windows**2 if index in window_blocks else 1, key_bias=True)
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        for index in range(max(self.features) + 1, depth):
            self.blocks[index].requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalized pixels (B, 3, H, W) → feature maps (B, D, H/patch, W/patch), shallow to deep.

        Raises:
            ValueError: the sides are not multiples of patch · windows.
        """
        stride = self.patch * self.windows
        if pixels.shape[-2] % stride or pixels.shape[-1] % stride:
            raise ValueError(f"sides must be multiples of {stride}, not {tuple(pixels.shape[-2:])}")
        height, width = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        x = self.embedding(pixels)
        maps = []
        for index, block in zip(range(max(self.features) + 1), self.blocks, strict=False):
            x = block(x)
            if index in self.features:
                patches = x.unflatten(1, (self.windows**2, -1))[:, :, 1:].flatten(1, 2)
                maps.append(from_windows(self.norm(patches), height, width, self.windows))
        return maps
