"""LW-DETR: A Transformer Replacement to YOLO for Real-Time Detection (Chen et al. 2024)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deformable import DeformableAttention
from .positions import sine_positions
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
_SMALL = replace(_TINY, vit_depth=10, window_blocks=(0, 1, 3, 6, 7, 9), features=(2, 4, 5, 9), num_queries=300)
_MEDIUM = replace(_SMALL, vit_dim=384)
_LARGE = replace(_MEDIUM, scales=(2, 0.5), hidden_dim=384, self_heads=12, cross_heads=24, points=4)
SIZES = {
    "tiny": _TINY,
    "small": _SMALL,
    "medium": _MEDIUM,
    "large": _LARGE,
    "xlarge": replace(_LARGE, vit_dim=768),
}
"""The published sizes (table 1)."""


class Perceptron(nn.Module):
    """Linear layers with ReLUs between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(…, first width) → (…, last width)."""
        for index, layer in enumerate(self.layers):
            x = layer(F.relu(x) if index else x)
        return x


class ProposalHead(nn.Module):
    """Scores every cell of the feature maps and says what box it stands for; one for each query group."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.class_head: nn.Module = nn.Linear(dim, num_classes)
        self.box_head = Perceptron(dim, dim, dim, 4)

    def forward(self, memory: Tensor, anchors: Tensor, inside: Tensor, count: int) -> Tensor:
        """Pick the best cells' boxes.

        Args:
            memory: (B, S, D) cells of all feature maps, zero where not inside.
            anchors: (S, 4) box of each cell as cx, cy, w, h.
            inside: (S,) bool, False where a cell may not be picked.
            count: how many to pick.

        Returns:
            (B, count, 4) boxes, best first.
        """
        embedded = self.norm(self.embed(memory))
        scores = self.class_head(embedded).amax(-1).masked_fill(~inside, -torch.inf)
        best = scores.topk(count, dim=1).indices
        picked = embedded.gather(1, best[..., None].expand(-1, -1, embedded.shape[-1]))
        return move(anchors[best], self.box_head(picked))


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

    def forward(self, x: Tensor, position: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """States (B, Q, D), their positions (B, Q, D) and boxes (B, Q, 4), feature maps (B, H, W, D) → (B, Q, D)."""
        placed = x + position
        x = self.norm1(x + self.self_attention(placed, placed, x))
        x = self.norm2(x + self.cross_attention(x + position, boxes, maps))
        return torch.as_tensor(self.norm3(x + self.feedforward(x)))


class Decoder(nn.Module):
    """A stack of decoder layers over object queries that start at proposed boxes."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.position_head = Perceptron(2 * dim, dim, dim)

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """Queries (Q, D), boxes (B, Q, 4), feature maps (B, H, W, D) → the normed state (B, Q, D) after each layer."""
        x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
        dim = queries.shape[-1]
        sines = torch.cat((sine_positions(y, x, dim), sine_positions(width, height, dim)), dim=-1)
        position = self.position_head(sines.to(queries.dtype))
        state = queries.expand(boxes.shape[0], -1, -1)
        states = []
        for layer in self.layers:
            state = layer(state, position, boxes, maps)
            states.append(self.norm(state))
        return states


class LwDetr(nn.Module):
    """ViT, projector, and a decoder whose queries start at the best cells' boxes (figure 2)."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        self.config = config
        dim, queries = config.hidden_dim, config.num_queries * config.num_groups
        self.backbone = ViT(config.vit_dim, config.vit_heads, config.vit_depth, config.window_blocks, config.features)
        self.projector = Projector(config.vit_dim, len(config.features), dim, config.scales, config.c2f_depth)
        self.proposals = nn.ModuleList(ProposalHead(dim, config.num_classes) for _ in range(config.num_groups))
        self.query_boxes = nn.Embedding(queries, 4)
        self.object_queries = nn.Embedding(queries, dim)
        self.decoder = Decoder(config)
        self.class_head = nn.Linear(dim, config.num_classes)
        self.box_head = Perceptron(dim, dim, dim, 4)

    def forward(self, pixels: Tensor) -> Predictions:
        """Detect objects, with the first query group.

        Args:
            pixels: (B, 3, H, W), normalised, sides multiples of 64.

        Returns:
            Logits (B, Q, K) and boxes (B, Q, 4); a picture of fewer cells than object queries has as many as cells.
        """
        maps = [one.permute(0, 2, 3, 1) for one in self.projector(self.backbone(pixels))]
        return self.answer(maps, self.propose(maps, self.proposals[0]))

    def answer(self, maps: Sequence[Tensor], proposed: Tensor) -> Predictions:
        """Let the first query group start at proposed boxes.

        Args:
            maps: (B, H, W, D) feature maps.
            proposed: (B, Q, 4) boxes as cx, cy, w, h, at least float32, best first.
        """
        count = proposed.shape[1]
        boxes = move(proposed, self.query_boxes.weight[:count])
        state = self.decoder(self.object_queries.weight[:count], boxes, maps)[-1]
        return Predictions(self.class_head(state), move(boxes, self.box_head(state)))

    def propose(self, maps: Sequence[Tensor], head: nn.Module) -> Tensor:
        """The boxes (B, Q, 4) of the best cells of feature maps (B, H, W, D), as a proposal head judges them."""
        memory = torch.cat([one.flatten(1, 2) for one in maps], dim=1)
        anchors = cell_boxes([(one.shape[1], one.shape[2]) for one in maps], memory)
        inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1)
        memory = memory.masked_fill(~inside[:, None], 0)
        return torch.as_tensor(head(memory, anchors, inside, min(self.config.num_queries, len(anchors))))


def cell_boxes(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """The box that each cell of feature maps stands for: its centre, and a size of 0.05 in the first map, doubling.

    Args:
        sizes: height and width of each map.
        like: a tensor whose device is taken, and whose dtype if it is wide enough.

    Returns:
        (S, 4) as cx, cy, w, h, at least float32.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    boxes = []
    for level, (height, width) in enumerate(sizes):
        y = (torch.arange(height, dtype=dtype, device=like.device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=like.device) + 0.5) / width
        side = torch.full((height, width), 0.05 * 2**level, dtype=dtype, device=like.device)
        boxes.append(torch.stack((x.expand(height, width), y[:, None].expand(height, width), side, side), -1))
    return torch.cat([one.flatten(0, 1) for one in boxes])


def move(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Box reparametrisation: the centre moves by a share of the size, the size scales by an exponential.

    Args:
        boxes: (…, 4) as cx, cy, w, h, at least float32.
        deltas: (…, 4).

    Returns:
        (…, 4) as cx, cy, w, h, in the dtype of `boxes`.
    """
    deltas = deltas.to(boxes.dtype)
    size = boxes[..., 2:]
    return torch.cat((boxes[..., :2] + deltas[..., :2] * size, deltas[..., 2:].exp() * size), dim=-1)
