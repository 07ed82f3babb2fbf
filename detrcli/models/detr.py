"""DETR: End-to-End Object Detection with Transformers (Carion et al. 2020)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import at_least_float32
from .layers import MLP
from .position_encoding import grid_places, padded_places, sine_positions
from .predictions import Predictions
from .resnet import BlockKind, ResNet
from .transformer import Decoder, Encoder


@dataclass(frozen=True)
class DetrConfig:
    """Sizes of a DETR. The defaults are the paper's DETR with ResNet-50, but for the number of classes.

    Attributes:
        num_classes: K, without the no-object class.
        num_queries: N, the number of object queries.
        depths: blocks in each stage of the ResNet.
        block: the kind of the ResNet's blocks.
        dilation: DC5, a last stage of twice the resolution.
        hidden_dim: d, the width of the transformer.
        heads: attention heads.
        feedforward: inner width of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: applied in training only.
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


class Detr(nn.Module):
    """Backbone, transformer, and one class and one box head that all decoder layers share (figure 2)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.hidden_dim, config.heads, config.feedforward, config.dropout)
        self.backbone = ResNet(config.depths, block=config.block, dilation=config.dilation)
        self.input_projection = nn.Conv2d(self.backbone.channels, config.hidden_dim, 1)
        self.encoder = Encoder(config.encoder_layers, *sizes)
        self.object_queries = nn.Embedding(config.num_queries, config.hidden_dim)
        self.decoder = Decoder(config.decoder_layers, *sizes)
        self.class_head = nn.Linear(config.hidden_dim, config.num_classes + 1)
        self.box_head = MLP(*[config.hidden_dim] * 3, 4)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> Predictions:
        """Detect objects.

        Args:
            pixels: (B, 3, H, W), normalised.
            mask: (B, H, W) bool, True on padding, or None where there is none.

        Returns:
            Logits (B, Q, K+1), the last of them no-object, and boxes (B, Q, 4).
        """
        return self._answer(self._decoder_states(pixels, mask)[-1])

    def every_layer(self, pixels: Tensor, mask: Tensor | None = None) -> list[Predictions]:
        """The answer of each decoder layer, the last one last, for the auxiliary losses (section 3.2)."""
        return [self._answer(state) for state in self._decoder_states(pixels, mask)]

    def _answer(self, state: Tensor) -> Predictions:
        boxes = self.box_head(state)
        return Predictions(self.class_head(state), boxes.to(at_least_float32(boxes.dtype)).sigmoid())

    def _decoder_states(self, pixels: Tensor, mask: Tensor | None) -> list[Tensor]:
        features = self.input_projection(self.backbone(pixels))
        height, width = features.shape[-2:]
        dtype = at_least_float32(features.dtype)
        if mask is None:
            attn_mask = None
            rows, columns = grid_places(height, width, dtype=dtype, device=features.device)
        else:
            padding = F.interpolate(mask[:, None].to(dtype), size=(height, width))[:, 0].bool()
            attn_mask = ~padding.flatten(1)[:, None, None, :]
            rows, columns = padded_places(padding, dtype=dtype)
        position = sine_positions(rows, columns, self.config.hidden_dim).flatten(1, 2).to(features.dtype)
        memory = self.encoder(features.flatten(2).transpose(1, 2), position, attn_mask)
        return list(self.decoder(self.object_queries.weight, memory, position, attn_mask))
