"""Multi-scale deformable attention (Zhu et al. 2021, equation 3), with boxes as reference."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeformableAttention(nn.Module):
    """Each query looks at a few places around its box, in every level, that it chooses itself.

    Args:
        dim: width.
        heads: attention heads.
        levels: number of feature maps.
        points: places for each head in each level.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Look. Places are computed, and maps sampled there, in the precision of the boxes.

        Args:
            queries: (B, Q, D).
            boxes: (B, Q, 4) reference boxes as cx, cy, w, h relative to the image, at least float32.
            maps: a feature map (B, H, W, D) for each level.

        Returns:
            (B, Q, D).
        """
        batch, count, dim = queries.shape
        offsets = self.offsets(queries).view(batch, count, self.heads, -1, 2).to(boxes.dtype)
        centre, size = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        places = centre + offsets * (size / (2 * self.points))
        grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (B·heads, Q, levels·points, 2)
        weights = self.weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B·heads, 1, Q, levels·points)
        seen = [
            F.grid_sample(self._by_head(one).to(grid.dtype), part, align_corners=False)
            for one, part in zip(maps, grid.split(self.points, dim=2), strict=True)
        ]
        mixed = (torch.cat(seen, dim=-1) * weights).sum(-1)  # (B·heads, D/heads, Q)
        return torch.as_tensor(self.output(mixed.view(batch, dim, count).transpose(1, 2).to(queries.dtype)))

    def _by_head(self, one: Tensor) -> Tensor:
        batch, height, width, _ = one.shape
        values = self.value(one).view(batch, height, width, self.heads, -1)
        return torch.as_tensor(values.permute(0, 3, 4, 1, 2).flatten(0, 1))
