"""Multi-scale deformable attention (Deformable DETR, Zhu et al. 2021, equation 3) around reference boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeformableAttention(nn.Module):
    """Attention of each query to a few sampling locations around its box, which it chooses in every feature map.

    Args:
        dim: D, the width.
        heads: number of attention heads.
        levels: number of feature maps.
        points: sampling locations per head and feature map.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Attend from each query to the feature maps; sampling is done in the dtype of the boxes.

        Args:
            queries: (B, Q, D).
            boxes: (B, Q, 4) reference boxes as cx, cy, w, h relative to the image, at least float32.
            maps: one feature map (B, H, W, D) per level.

        Returns:
            (B, Q, D).
        """
        batch, count, dim = queries.shape
        offsets = self.offsets(queries).view(batch, count, self.heads, -1, 2).to(boxes.dtype)
        center, size = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        sampling_locations = center + offsets * (size / (2 * self.points))
        grid = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)  # (B·heads, Q, levels·points, 2)
        weights = self.weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B·heads, 1, Q, levels·points)
        sampled = [
            F.grid_sample(self._split(features).to(grid.dtype), level_grid, align_corners=False)
            for features, level_grid in zip(maps, grid.split(self.points, dim=2), strict=True)
        ]
        mixed = (torch.cat(sampled, dim=-1) * weights).sum(-1)  # (B·heads, D/heads, Q)
        return torch.as_tensor(self.output(mixed.view(batch, dim, count).transpose(1, 2).to(queries.dtype)))

    def _split(self, features: Tensor) -> Tensor:
        """Project a feature map, (B, H, W, D) → (B·heads, D/heads, H, W)."""
        batch, height, width, _ = features.shape
        values = self.value(features).view(batch, height, width, self.heads, -1)
        return torch.as_tensor(values.permute(0, 3, 4, 1, 2).flatten(0, 1))
