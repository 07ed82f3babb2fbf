"""Transformer of DETR (section 3.2 and appendix A.3), with positions added in every layer.

DETR normalizes the output of each sublayer (post-norm) or, as in Table Transformer, the input (pre-norm).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormPlacement: TypeAlias = Literal["post", "pre"]


class Attention(nn.Module):
    """Multi-head attention (appendix A.1)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend from each query to all keys that are not masked.

        Args:
            queries: (B, Q, D).
            keys: (B, S, D).
            values: (B, S, D).
            attn_mask: (B, 1, 1, S) bool, False where a key is masked, or None.

        Returns:
            (B, Q, D).
        """
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(self.key(keys)),
            self._split(self.value(values)),
            attn_mask=attn_mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return torch.as_tensor(self.output(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them, (…, D) → (…, D)."""

    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, inner), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(inner, dim))


class EncoderLayer(nn.Module):
    """Self-attention over the feature map, then a feed-forward network (figure 10, left)."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, feedforward, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None) -> Tensor:
        """(B, S, D), with positions (B or 1, S, D) and the `attn_mask` of `Attention` → (B, S, D)."""
        with_pos = x + position
        x = self.norm1(x + self.dropout(self.self_attention(with_pos, with_pos, x, attn_mask)))
        return torch.as_tensor(self.norm2(x + self.dropout(self.feedforward(x))))


class DecoderLayer(nn.Module):
    """Self-attention of the object queries, cross-attention to the image, feed-forward network (figure 10, right)."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim, feedforward, dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, query_pos: Tensor, memory: Tensor, with_pos: Tensor, attn_mask: Tensor | None
    ) -> Tensor:
        """Refine the states of the object queries.

        Args:
            x: (B, Q, D) states.
            query_pos: (Q, D) learned object queries, added as positions.
            memory: (B, S, D) encoder output.
            with_pos: (B, S, D) encoder output plus positions.
            attn_mask: (B, 1, 1, S) bool or None, as in `Attention`.

        Returns:
            (B, Q, D).
        """
        queries = x + query_pos
        x = self.norm1(x + self.dropout(self.self_attention(queries, queries, x)))
        x = self.norm2(x + self.dropout(self.cross_attention(x + query_pos, with_pos, memory, attn_mask)))
        return torch.as_tensor(self.norm3(x + self.dropout(self.feedforward(x))))


class PreNormEncoderLayer(EncoderLayer):
    """`EncoderLayer` with pre-norm; positions are added after the norm."""

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None) -> Tensor:
        """See `EncoderLayer.forward`."""
        normed = self.norm1(x)
        with_pos = normed + position
        x = x + self.dropout(self.self_attention(with_pos, with_pos, normed, attn_mask))
        return x + torch.as_tensor(self.dropout(self.feedforward(self.norm2(x))))


class PreNormDecoderLayer(DecoderLayer):
    """`DecoderLayer` with pre-norm; object queries are added after the norm."""

    def forward(
        self, x: Tensor, query_pos: Tensor, memory: Tensor, with_pos: Tensor, attn_mask: Tensor | None
    ) -> Tensor:
        """See `DecoderLayer.forward`."""
        normed = self.norm1(x)
        queries = normed + query_pos
        x = x + self.dropout(self.self_attention(queries, queries, normed))
        x = x + self.dropout(self.cross_attention(self.norm2(x) + query_pos, with_pos, memory, attn_mask))
        return x + torch.as_tensor(self.dropout(self.feedforward(self.norm3(x))))


class LayerKinds(NamedTuple):
    """Kinds of layers that go together.

    Attributes:
        encoder: kind of encoder layer.
        decoder: kind of decoder layer.
        encoder_norm: builds the final norm of the encoder from the width.
    """

    encoder: type[EncoderLayer]
    decoder: type[DecoderLayer]
    encoder_norm: Callable[[int], nn.Module]


LAYERS: dict[NormPlacement, LayerKinds] = {
    "post": LayerKinds(EncoderLayer, DecoderLayer, nn.Identity),
    "pre": LayerKinds(PreNormEncoderLayer, PreNormDecoderLayer, nn.LayerNorm),
}


class Encoder(nn.Module):
    """Stack of encoder layers, with a final norm after pre-norm layers."""

    def __init__(
        self, layers: int, dim: int, heads: int, feedforward: int, dropout: float, *, norm: NormPlacement
    ) -> None:
        super().__init__()
        kinds = LAYERS[norm]
        self.layers = nn.ModuleList(kinds.encoder(dim, heads, feedforward, dropout) for _ in range(layers))
        self.norm = kinds.encoder_norm(dim)

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None) -> Tensor:
        """(B, S, D), with positions (B or 1, S, D) and the `attn_mask` of `Attention` → memory (B, S, D)."""
        for layer in self.layers:
            x = layer(x, position, attn_mask)
        return torch.as_tensor(self.norm(x))


class Decoder(nn.Module):
    """Stack of decoder layers with one final norm."""

    def __init__(
        self, layers: int, dim: int, heads: int, feedforward: int, dropout: float, *, norm: NormPlacement
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LAYERS[norm].decoder(dim, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, memory: Tensor, position: Tensor, attn_mask: Tensor | None) -> list[Tensor]:
        """Object queries (Q, D) and memory (B, S, D) → normed states (B, Q, D) after each layer, in order."""
        with_pos = memory + position
        x = queries.new_zeros(memory.shape[0], *queries.shape)
        states = []
        for layer in self.layers:
            x = layer(x, queries, memory, with_pos, attn_mask)
            states.append(self.norm(x))
        return states
