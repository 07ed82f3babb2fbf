"""RF-DETR: Neural Architecture Search for Real-Time Detection Transformers (Robinson et al. 2025)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .dinov2 import DinoV2
from .lwdetr import Cells, LwDetr, LwDetrConfig
from .projector import NormKind


@dataclass(frozen=True)
class RfDetrConfig(LwDetrConfig):
    """Sizes of an RF-DETR, beyond those of an LW-DETR. The defaults are those of RF-DETR-nano on COCO.

    Attributes:
        patch: side of a patch in pixels.
        windows: number of windows in each direction.
    """

    vit_dim: int = 384
    vit_heads: int = 6
    vit_depth: int = 12
    window_blocks: tuple[int, ...] = (0, 1, 2, 4, 5, 7, 8, 10, 11)
    features: tuple[int, ...] = (2, 5, 8, 11)
    vit_positions: int = 24
    projector_norm: NormKind = "layer"
    num_queries: int = 300
    decoder_layers: int = 2
    patch: int = 16
    windows: int = 2


_NANO = RfDetrConfig()
_BASE = replace(
    _NANO,
    patch=14,
    windows=4,
    vit_positions=37,
    window_blocks=(0, 1, 3, 4, 6, 7, 9, 10),
    features=(1, 4, 7, 10),
    decoder_layers=3,
)
SIZES = {
    "nano": _NANO,
    "small": replace(_NANO, vit_positions=32, decoder_layers=3),
    "medium": replace(_NANO, vit_positions=36, decoder_layers=4),
    "large": replace(_NANO, vit_positions=44, decoder_layers=4),
    "base": _BASE,
    "large-2025": replace(
        _BASE, vit_dim=768, vit_heads=12, scales=(2, 0.5), hidden_dim=384, self_heads=12, cross_heads=24, points=4
    ),
}
"""The published sizes."""


class RfDetr(LwDetr):
    """LW-DETR with a windowed DINOv2 as its backbone.

    Unlike LW-DETR's, cells near the border can be proposed, and there are as many predictions as object queries however
    few cells there are.
    """

    config: RfDetrConfig

    def _make_backbone(self) -> nn.Module:
        config = self.config
        return DinoV2(
            config.vit_dim,
            config.vit_heads,
            config.vit_depth,
            config.window_blocks,
            config.features,
            config.vit_positions,
            patch=config.patch,
            windows=config.windows,
        )

    def cells(self, maps: Sequence[Tensor]) -> Cells:
        """Cells of feature maps (B, H, W, D); those near the border are zero, and so are their boxes."""
        memory, anchors, valid = super().cells(maps)
        return Cells(memory, anchors.masked_fill(~valid[:, None], 0), torch.ones_like(valid))

    def reference_boxes(self, proposed: Tensor) -> Tensor:
        """Adjust proposed boxes (B, groups, N, 4) by learned deltas, which are the boxes of the other Q - N queries."""
        batch, groups, count, _ = proposed.shape
        others = self._deltas(groups)[:, count:].to(proposed.dtype).expand(batch, -1, -1, -1)
        return torch.cat((super().reference_boxes(proposed), others), dim=2)
