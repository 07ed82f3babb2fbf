"""LW-DETR: A Transformer Replacement to YOLO for Real-Time Detection (Chen et al. 2024)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .boxes import Predictions, apply_deltas, make_anchors
from .deformable import DeformableAttention
from .layers import MLP
from .position_encoding import sine_encoding
from .projector import NormKind, Projector
from .transformer import Attention, FeedForward
from .vit import ViT


@dataclass(frozen=True)
class LwDetrConfig:
    """Sizes of an LW-DETR. The defaults are those of LW-DETR-tiny on COCO.

    Attributes:
        num_classes: K; there is no no-object class.
        vit_dim: width of the ViT.
        vit_heads: its number of attention heads.
        vit_depth: its number of blocks.
        window_blocks: indices of its blocks that attend within windows.
        features: indices of its blocks whose outputs the projector takes.
        vit_positions: side of its grid of learned positions, which is resized to that of the image.
        scales: size of each feature map of the projector relative to the ViT's: 2 (P3), 1 (P4), 0.5 (P5).
        c2f_depth: convolution pairs per block of the projector.
        projector_norm: norm of its convolutions.
        reduce_before_upsampling: whether a convolution halves the channels of a feature map before it is upsampled.
        hidden_dim: D, the width of the decoder.
        num_queries: Q, the number of object queries in a group.
        num_groups: number of query groups, of which only the first is used for prediction.
        decoder_layers: number of decoder layers.
        self_heads: number of heads of the decoder's self-attention.
        cross_heads: number of heads of its deformable attention.
        points: sampling locations per head and feature map.
        feedforward: inner width of the decoder's feed-forward networks.
    """

    num_classes: int = 91
    vit_dim: int = 192
    vit_heads: int = 12
    vit_depth: int = 6
    window_blocks: tuple[int, ...] = (0, 2, 4)
    features: tuple[int, ...] = (1, 3, 5)
    vit_positions: int = 14
    scales: tuple[float, ...] = (1,)
    c2f_depth: int = 3
    projector_norm: NormKind = "batch"
    reduce_before_upsampling: bool = False
    hidden_dim: int = 256
    num_queries: int = 100
    num_groups: int = 13
    decoder_layers: int = 3
    self_heads: int = 8
    cross_heads: int = 16
    points: int = 2
    feedforward: int = 2048


_TINY = LwDetrConfig()
_NANO = replace(
    _TINY,
    vit_dim=128,
    vit_heads=4,
    c2f_depth=2,
    hidden_dim=128,
    num_queries=60,
    num_groups=6,
    self_heads=4,
    cross_heads=8,
    feedforward=512,
)
_SMALL = replace(_TINY, vit_depth=10, window_blocks=(0, 1, 3, 6, 7, 9), features=(2, 4, 5, 9), num_queries=300)
_MEDIUM = replace(_SMALL, vit_dim=384)
_LARGE = replace(_MEDIUM, scales=(2, 0.5), hidden_dim=384, self_heads=12, cross_heads=24, points=4)
SIZES = {
    "tiny": _TINY,
    "small": _SMALL,
    "medium": _MEDIUM,
    "large": _LARGE,
    "xlarge": replace(_LARGE, vit_dim=768, reduce_before_upsampling=True),
    "nano": _NANO,
}
"""The published sizes (table 1), and this project's own "nano"."""


class Cells(NamedTuple):
    """Cells of feature maps, of which the best become proposals.

    Attributes:
        memory: (B, S, D) cells of all feature maps, zero where not valid.
        anchors: (S, 4) anchor of each cell as cx, cy, w, h.
        valid: (S,) bool, False for cells that are never proposed.
    """

    memory: Tensor
    anchors: Tensor
    valid: Tensor


class ProposalHead(nn.Module):
    """Class scores and a box for every cell of the feature maps; each query group has its own head."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes)
        self.box_head = MLP(dim, dim, dim, 4)

    def forward(self, cells: Cells, count: int) -> Predictions:
        """Propose the cells with the highest scores: logits (B, count, K) and boxes (B, count, 4), best first."""
        embedded = self.norm(self.embed(cells.memory))
        logits = self.class_head(embedded)
        best = logits.amax(-1).masked_fill(~cells.valid, -torch.inf).topk(count, dim=1).indices
        best_embedded = embedded.gather(1, best[..., None].expand(-1, -1, embedded.shape[-1]))
        best_logits = logits.gather(1, best[..., None].expand(-1, -1, logits.shape[-1]))
        return Predictions(best_logits, apply_deltas(cells.anchors[best], self.box_head(best_embedded)))


class DecoderLayer(nn.Module):
    """Self-attention of the object queries, deformable attention to the feature maps, feed-forward network."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attention = Attention(dim, config.self_heads, dropout=0)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attention = DeformableAttention(dim, config.cross_heads, len(config.scales), config.points)
        self.norm2 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, config.feedforward, dropout=0)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, boxes: Tensor, maps: Sequence[Tensor], groups: int) -> Tensor:
        """Refine the states of the object queries.

        Args:
            x: (B, groups·Q, D) states, group by group.
            position: (B, groups·Q, D) their positions.
            boxes: (B, groups·Q, 4) their reference boxes.
            maps: feature maps (B, H, W, D).
            groups: number of query groups; self-attention is within groups.

        Returns:
            (B, groups·Q, D).
        """
        with_pos, by_group = x + position, (x.shape[0] * groups, -1, x.shape[-1])
        attended = self.self_attention(with_pos.reshape(by_group), with_pos.reshape(by_group), x.reshape(by_group))
        x = self.norm1(x + attended.view(x.shape))
        x = self.norm2(x + self.cross_attention(x + position, boxes, maps))
        return torch.as_tensor(self.norm3(x + self.feedforward(x)))


class Decoder(nn.Module):
    """Stack of decoder layers over object queries with reference boxes."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.position_head = MLP(2 * dim, dim, dim)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor], groups: int = 1) -> list[Tensor]:
        """Decode independent query groups.

        Args:
            queries: (groups·Q, D) object queries, group by group.
            boxes: (B, groups·Q, 4) their reference boxes.
            maps: feature maps (B, H, W, D).
            groups: number of query groups.

        Returns:
            Normed states (B, groups·Q, D) after each layer, in order.
        """
        x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
        dim = queries.shape[-1]
        sines = torch.cat((sine_encoding(y, x, dim), sine_encoding(width, height, dim)), dim=-1)
        position = self.position_head(sines.to(queries.dtype))
        state = queries.expand(boxes.shape[0], -1, -1)
        states = []
        for layer in self.layers:
            state = layer(state, position, boxes, maps, groups)
            states.append(self.norm(state))
        return states


class LwDetr(nn.Module):
    """ViT, projector, and a decoder whose reference boxes are the best proposals (figure 2)."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        self.config = config
        dim, queries = config.hidden_dim, config.num_queries * config.num_groups
        self.backbone = self._make_backbone()
        self.projector = Projector(
            config.vit_dim,
            len(config.features),
            dim,
            config.scales,
            config.c2f_depth,
            config.projector_norm,
            reduce_first=config.reduce_before_upsampling,
        )
        self.proposals = nn.ModuleList(ProposalHead(dim, config.num_classes) for _ in range(config.num_groups))
        self.reference_deltas = nn.Embedding(queries, 4)
        self.object_queries = nn.Embedding(queries, dim)
        self.decoder = Decoder(config)
        self.class_head = nn.Linear(dim, config.num_classes)
        self.box_head = MLP(dim, dim, dim, 4)

    def _make_backbone(self) -> nn.Module:
        config = self.config
        return ViT(
            config.vit_dim,
            config.vit_heads,
            config.vit_depth,
            config.window_blocks,
            config.features,
            config.vit_positions,
        )

    def forward(self, pixels: Tensor) -> Predictions:
        """Detect objects with the first query group.

        Args:
            pixels: (B, 3, H, W), normalized, sides multiples of the patch size times the windows per side.

        Returns:
            Logits (B, Q, K) and boxes (B, Q, 4). Q is smaller if the maps have fewer cells than object queries.
        """
        maps = self.feature_maps(pixels)
        return self.decode(maps, self.propose(maps, (self.proposals[0],), self.config.num_queries).boxes)

    def every_layer(self, pixels: Tensor) -> tuple[list[Predictions], Predictions]:
        """Predictions of all query groups for the losses (section 3.2).

        The decoder's losses do not reach the proposals, which have losses of their own.

        Args:
            pixels: (B, 3, H, W), normalized, sides multiples of the patch size times the windows per side.

        Returns:
            Predictions of each decoder layer, in order, and the proposals; each logits (B, groups·Q, K) and boxes
            (B, groups·Q, 4), group by group.
        """
        maps, groups = self.feature_maps(pixels), self.config.num_groups
        proposals = self.propose(maps, self.proposals, self.config.num_queries)
        boxes = self.reference_boxes(proposals.boxes.detach().unflatten(1, (groups, -1)))
        queries = self.object_queries.weight.unflatten(0, (groups, -1))[:, : boxes.shape[2]].flatten(0, 1)
        boxes = boxes.flatten(1, 2)
        states = self.decoder(queries, boxes, maps, groups)
        return [
            Predictions(self.class_head(state), apply_deltas(boxes, self.box_head(state))) for state in states
        ], proposals

    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        """Normalized pixels (B, 3, H, W) → one feature map (B, H', W', D) per scale."""
        maps: list[Tensor] = self.projector(self.backbone(pixels))
        return maps

    def decode(self, maps: Sequence[Tensor], proposed: Tensor) -> Predictions:
        """Decode the first query group from proposed boxes.

        Args:
            maps: feature maps (B, H, W, D).
            proposed: (B, Q, 4) boxes as cx, cy, w, h, at least float32, highest score first.

        Returns:
            Logits (B, Q, K) and boxes (B, Q, 4).
        """
        boxes = self.reference_boxes(proposed[:, None])[:, 0]
        state = self.decoder(self.object_queries.weight[: boxes.shape[1]], boxes, maps)[-1]
        return Predictions(self.class_head(state), apply_deltas(boxes, self.box_head(state)))

    def reference_boxes(self, proposed: Tensor) -> Tensor:
        """Adjust proposed boxes by the learned deltas of the object queries that take them.

        Args:
            proposed: (B, groups, N, 4) boxes for the first N queries of the first groups, at least float32.

        Returns:
            (B, groups, N, 4).
        """
        return apply_deltas(proposed, self._deltas(proposed.shape[1])[:, : proposed.shape[2]])

    def _deltas(self, groups: int) -> Tensor:
        return self.reference_deltas.weight.view(-1, self.config.num_queries, 4)[:groups]

    def propose(self, maps: Sequence[Tensor], heads: Iterable[nn.Module], count: int) -> Predictions:
        """Propose the best cells of the feature maps according to each head.

        Args:
            maps: feature maps (B, H, W, D).
            heads: proposal heads.
            count: number of proposals per head; fewer where there are fewer cells.

        Returns:
            Logits (B, heads·count, K) and boxes (B, heads·count, 4), head by head, highest score first.
        """
        cells = self.cells(maps)
        count = min(count, len(cells.anchors))
        logits, boxes = zip(*(head(cells, count) for head in heads), strict=True)
        return Predictions(torch.cat(logits, dim=1), torch.cat(boxes, dim=1))

    def cells(self, maps: Sequence[Tensor]) -> Cells:
        """Cells of feature maps (B, H, W, D); none is proposed whose anchor is too near the border."""
        memory = torch.cat([one.flatten(1, 2) for one in maps], dim=1)
        anchors = make_anchors([(one.shape[1], one.shape[2]) for one in maps], memory)
        valid = ((anchors > 0.01) & (anchors < 0.99)).all(-1)
        return Cells(memory.masked_fill(~valid[:, None], 0), anchors, valid)
