"""DETR: End-to-End Object Detection with Transformers (Carion et al. 2020)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import Predictions, at_least_float32
from .layers import MLP
from .position_encoding import grid_coordinates, padded_coordinates, sine_encoding
from .resnet import BlockKind, ResNet
from .transformer import Decoder, Encoder, NormPlacement


@dataclass(frozen=True)
class DetrConfig:
    """Sizes of a DETR. The defaults are those of DETR with ResNet-50.

    Attributes:
        num_classes: K, without the no-object class.
        num_queries: Q, the number of object queries.
        depths: number of blocks in each stage of the ResNet.
        block: kind of its blocks.
        dilation: whether its last stage has twice the resolution (DC5).
        hidden_dim: D, the width of the transformer.
        heads: number of attention heads.
        feedforward: inner width of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: applied in training only.
        norm: whether the transformer's layers normalize the outputs (post) or the inputs (pre) of their sublayers.
    """

    num_classes: int
    num_queries: int = 100
    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: BlockKind = "bottleneck"
    dilation: bool = False
    hidden_dim: int = 256
    heads: int = 8
    feedforward: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    norm: NormPlacement = "post"


class Detr(nn.Module):
    """Backbone, transformer, and prediction heads that all decoder layers share (figure 2)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.hidden_dim, config.heads, config.feedforward, config.dropout)
        self.backbone = ResNet(config.depths, block=config.block, dilation=config.dilation)
        self.input_projection = nn.Conv2d(self.backbone.channels, config.hidden_dim, 1)
        self.encoder = Encoder(config.encoder_layers, *sizes, norm=config.norm)
        self.object_queries = nn.Embedding(config.num_queries, config.hidden_dim)
        self.decoder = Decoder(config.decoder_layers, *sizes, norm=config.norm)
        self.class_head = nn.Linear(config.hidden_dim, config.num_classes + 1)
        self.box_head = MLP(*[config.hidden_dim] * 3, 4)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> Predictions:
        """Detect objects.

        Args:
            pixels: (B, 3, H, W), normalized.
            mask: (B, H, W) bool, True on padding, or None without padding.

        Returns:
            Logits (B, Q, K+1), of which the last is no-object, and boxes (B, Q, 4).
        """
        return self._predict(self._decoder_states(pixels, mask)[-1])

    def every_layer(self, pixels: Tensor, mask: Tensor | None = None) -> list[Predictions]:
        """Predictions of each decoder layer, in order, for the auxiliary losses (section 3.2); see `forward`."""
        return [self._predict(state) for state in self._decoder_states(pixels, mask)]

    def _predict(self, state: Tensor) -> Predictions:
        boxes = self.box_head(state)
        return Predictions(self.class_head(state), boxes.to(at_least_float32(boxes.dtype)).sigmoid())

    def _decoder_states(self, pixels: Tensor, mask: Tensor | None) -> list[Tensor]:
        features = self.input_projection(self.backbone(pixels))
        height, width = features.shape[-2:]
        dtype = at_least_float32(features.dtype)
        if mask is None:
            attn_mask = None
            rows, columns = grid_coordinates(height, width, dtype=dtype, device=features.device)
        else:
            padding = F.interpolate(mask[:, None].to(dtype), size=(height, width))[:, 0].bool()
            attn_mask = ~padding.flatten(1)[:, None, None, :]
            rows, columns = padded_coordinates(padding, dtype=dtype)
        position = sine_encoding(rows, columns, self.config.hidden_dim).flatten(1, 2).to(features.dtype)
        memory = self.encoder(features.flatten(2).transpose(1, 2), position, attn_mask)
        return list(self.decoder(self.object_queries.weight, memory, position, attn_mask))
