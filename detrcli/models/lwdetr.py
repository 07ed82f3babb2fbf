"""LW-DETR: A Transformer Replacement to YOLO for Real-Time Detection (Chen et al. 2024)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .boxes import apply_deltas, make_anchors
from .deformable import DeformableAttention
from .layers import MLP
from .position_encoding import sine_positions
from .predictions import Predictions
from .projector import Projector
from .transformer import Attention, FeedForward
from .vit import ViT


@dataclass(frozen=True)
class LwDetrConfig:
    """Sizes of an LW-DETR. The defaults are those of LW-DETR-tiny on COCO.

    Attributes:
        num_classes: K; there is no no-object class.
        vit_dim: width of the ViT.
        vit_heads: its attention heads.
        vit_depth: its number of blocks.
        window_blocks: its blocks that attend within windows.
        features: its blocks whose outputs the projector takes.
        vit_positions: sides of its grid of learned positions, which is resized to the image's.
        scales: size of each of the projector's maps relative to the ViT's: 2 (P3), 1 (P4), 0.5 (P5).
        c2f_depth: convolution pairs in each block of the projector.
        hidden_dim: width of the decoder.
        num_queries: object queries.
        num_groups: query groups, of which all but the first are for training.
        decoder_layers: number of decoder layers.
        self_heads: heads of the decoder's self-attention.
        cross_heads: heads of its deformable attention.
        points: places that each of these looks at in each level.
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
    "xlarge": replace(_LARGE, vit_dim=768),
    "nano": _NANO,
}
"""The published sizes (table 1), and "nano", which is this project's own."""


class ProposalHead(nn.Module):
    """Scores every cell of the feature maps and says what box it stands for; one for each query group."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes)
        self.box_head = MLP(dim, dim, dim, 4)

    def forward(self, memory: Tensor, anchors: Tensor, inside: Tensor, count: int) -> Predictions:
        """Pick the best cells.

        Args:
            memory: (B, S, D) cells of all feature maps, zero where not inside.
            anchors: (S, 4) box of each cell as cx, cy, w, h.
            inside: (S,) bool, False where a cell may not be picked.
            count: how many to pick.

        Returns:
            Logits (B, count, K) and boxes (B, count, 4), best first.
        """
        embedded = self.norm(self.embed(memory))
        logits = self.class_head(embedded)
        best = logits.amax(-1).masked_fill(~inside, -torch.inf).topk(count, dim=1).indices
        picked = embedded.gather(1, best[..., None].expand(-1, -1, embedded.shape[-1]))
        chosen = logits.gather(1, best[..., None].expand(-1, -1, logits.shape[-1]))
        return Predictions(chosen, apply_deltas(anchors[best], self.box_head(picked)))


class DecoderLayer(nn.Module):
    """Attention among the object queries, deformable attention to the feature maps, feed-forward network."""

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
        """One round of refining what each object query has found.

        Args:
            x: (B, Q, D) states, query group after query group.
            position: (B, Q, D) their positions.
            boxes: (B, Q, 4) their boxes.
            maps: (B, H, W, D) feature maps.
            groups: number of query groups; a query attends to those of its own group alone.

        Returns:
            (B, Q, D).
        """
        with_pos, apart = x + position, (x.shape[0] * groups, -1, x.shape[-1])
        attended = self.self_attention(with_pos.reshape(apart), with_pos.reshape(apart), x.reshape(apart))
        x = self.norm1(x + attended.view(x.shape))
        x = self.norm2(x + self.cross_attention(x + position, boxes, maps))
        return torch.as_tensor(self.norm3(x + self.feedforward(x)))


class Decoder(nn.Module):
    """A stack of decoder layers over object queries that start at proposed boxes."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.position_head = MLP(2 * dim, dim, dim)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor], groups: int = 1) -> list[Tensor]:
        """Decode `groups` query groups, which see nothing of each other.

        Args:
            queries: (Q, D) object queries, group after group.
            boxes: (B, Q, 4) where they start.
            maps: (B, H, W, D) feature maps.
            groups: number of query groups.

        Returns:
            The normed state (B, Q, D) after each layer.
        """
        x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
        dim = queries.shape[-1]
        sines = torch.cat((sine_positions(y, x, dim), sine_positions(width, height, dim)), dim=-1)
        position = self.position_head(sines.to(queries.dtype))
        state = queries.expand(boxes.shape[0], -1, -1)
        states = []
        for layer in self.layers:
            state = layer(state, position, boxes, maps, groups)
            states.append(self.norm(state))
        return states


class LwDetr(nn.Module):
    """ViT, projector, and a decoder whose queries start at the best cells' boxes (figure 2)."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        self.config = config
        dim, queries = config.hidden_dim, config.num_queries * config.num_groups
        self.backbone = ViT(
            config.vit_dim,
            config.vit_heads,
            config.vit_depth,
            config.window_blocks,
            config.features,
            config.vit_positions,
        )
        self.projector = Projector(config.vit_dim, len(config.features), dim, config.scales, config.c2f_depth)
        self.proposals = nn.ModuleList(ProposalHead(dim, config.num_classes) for _ in range(config.num_groups))
        self.reference_deltas = nn.Embedding(queries, 4)
        self.object_queries = nn.Embedding(queries, dim)
        self.decoder = Decoder(config)
        self.class_head = nn.Linear(dim, config.num_classes)
        self.box_head = MLP(dim, dim, dim, 4)

    def forward(self, pixels: Tensor) -> Predictions:
        """Detect objects, with the first query group.

        Args:
            pixels: (B, 3, H, W), normalised, sides multiples of 64.

        Returns:
            Logits (B, Q, K) and boxes (B, Q, 4); an image of fewer cells than object queries has as many as cells.
        """
        maps = self.feature_maps(pixels)
        return self.answer(maps, self.propose(maps, (self.proposals[0],), self.config.num_queries).boxes)

    def every_layer(self, pixels: Tensor) -> tuple[list[Predictions], Predictions]:
        """What the losses of training are taken of (section 3.2): all query groups, side by side as further queries.

        Proposals lend the decoder their boxes but learn from their own loss alone.

        Args:
            pixels: (B, 3, H, W), normalised, sides multiples of 64.

        Returns:
            The answer of each decoder layer, the last one last, and the proposals: logits (B, groups·Q, K) and boxes
            (B, groups·Q, 4) each, group after group.
        """
        maps, groups = self.feature_maps(pixels), self.config.num_groups
        proposals = self.propose(maps, self.proposals, self.config.num_queries)
        count = proposals.boxes.shape[1] // groups
        queries, reference_deltas = (
            embedding.weight.unflatten(0, (groups, -1))[:, :count].flatten(0, 1)
            for embedding in (self.object_queries, self.reference_deltas)
        )
        boxes = apply_deltas(proposals.boxes.detach(), reference_deltas)
        states = self.decoder(queries, boxes, maps, groups)
        return [
            Predictions(self.class_head(state), apply_deltas(boxes, self.box_head(state))) for state in states
        ], proposals

    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels (B, 3, H, W) → a map (B, H, W, D) for each scale."""
        maps: list[Tensor] = self.projector(self.backbone(pixels))
        return maps

    def answer(self, maps: Sequence[Tensor], proposed: Tensor) -> Predictions:
        """Let the first query group start at proposed boxes.

        Args:
            maps: (B, H, W, D) feature maps.
            proposed: (B, Q, 4) boxes as cx, cy, w, h, at least float32, best first.
        """
        count = proposed.shape[1]
        boxes = apply_deltas(proposed, self.reference_deltas.weight[:count])
        state = self.decoder(self.object_queries.weight[:count], boxes, maps)[-1]
        return Predictions(self.class_head(state), apply_deltas(boxes, self.box_head(state)))

    def propose(self, maps: Sequence[Tensor], heads: Iterable[nn.Module], count: int) -> Predictions:
        """The best cells of feature maps, as each proposal head judges them, head after head.

        Args:
            maps: (B, H, W, D) feature maps.
            heads: proposal heads.
            count: how many each picks, or all where there are fewer.

        Returns:
            Logits (B, heads·count, K) and boxes (B, heads·count, 4), each head's best first.
        """
        memory = torch.cat([one.flatten(1, 2) for one in maps], dim=1)
        anchors = make_anchors([(one.shape[1], one.shape[2]) for one in maps], memory)
        inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1)
        memory = memory.masked_fill(~inside[:, None], 0)
        count = min(count, len(anchors))
        logits, boxes = zip(*(head(memory, anchors, inside, count) for head in heads), strict=True)
        return Predictions(torch.cat(logits, dim=1), torch.cat(boxes, dim=1))
