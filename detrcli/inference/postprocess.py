"""Pixels in, finished detections out: what every backend runs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.boxes import cxcywh_to_xyxy
from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..models.predictions import Predictions


class EndToEnd(nn.Module):
    """Normalisation, the network, and the family's selection of answers, as one module.

    Normalisation and selection run in float32 whatever the dtype of the network.

    Args:
        network: takes normalised pixels (B, 3, H, W) and gives `Predictions`.
        select: takes `Predictions` in float32 and gives scores (B, K), labels (B, K) and boxes (B, K, 4).
        scale: factor on the 8-bit values.
        mean: of each channel, taken off after scaling.
        std: of each channel, divided by at last.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self, network: nn.Module, select: nn.Module, *, scale: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.select = select
        deviation = torch.tensor(std, dtype=torch.float64)
        self.register_buffer("factor", (scale / deviation).float())
        self.register_buffer("offset", (-torch.tensor(mean, dtype=torch.float64) / deviation).float())

    def forward(self, images: Tensor, sizes: Tensor, filled: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects.

        Args:
            images: (B, H, W, 3) uint8, RGB, resized.
            sizes: (B, 2) height and width of each image before it was resized.
            filled: (B, 2) height and width that each image fills, or None where nothing is padded.

        Returns:
            Boxes (B, K, 4) as x1, y1, x2, y2 in pixels of the given sizes, scores (B, K), labels (B, K).
        """
        predictions = self.network(self.normalize(images, filled).to(next(self.network.parameters()).dtype))
        scores, labels, boxes = self.select(Predictions(*(answer.float() for answer in predictions)))
        if filled is not None:
            sizes = sizes * filled.new_tensor(images.shape[1:3]) / filled
        return cxcywh_to_xyxy(boxes) * sizes.flip(1).repeat(1, 2)[:, None], scores, labels

    def normalize(self, images: Tensor, filled: Tensor | None = None) -> Tensor:
        """(B, H, W, 3) uint8 → (B, 3, H, W) float32, channels last in memory, zero beyond what is filled (B, 2)."""
        height, width = images.shape[1:3]
        rows = images.flatten(2).float()  # of all channels of a row at once: by threes it takes several times as long
        rows = rows.mul_(self.factor.repeat(width)).add_(self.offset.repeat(width))
        pixels = rows.view(*images.shape).permute(0, 3, 1, 2)
        if filled is None:
            return pixels
        below, right = (
            torch.arange(side, dtype=filled.dtype, device=filled.device) >= filled[:, axis, None]
            for axis, side in enumerate((height, width))
        )
        return pixels.masked_fill((below[:, :, None] | right[:, None, :])[:, None], 0)


class DetrPostprocess(nn.Module):
    """DETR's selection (section 3.1): each query's most probable class other than no-object."""

    def forward(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, Q), labels (B, Q) and boxes (B, Q, 4)."""
        scores, labels = predictions.logits.softmax(-1)[..., :-1].max(-1)
        return scores, labels, predictions.boxes


class LwDetrPostprocess(nn.Module):
    """LW-DETR's selection: the best of all scores of every query for every class, so that a query can answer twice.

    Args:
        count: how many, if there are so many.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, K), falling, labels (B, K) and boxes (B, K, 4), K at most `count`."""
        classes = predictions.logits.shape[-1]
        every = predictions.logits.sigmoid().flatten(1)
        scores, places = every.topk(min(self.count, every.shape[1]), dim=1)
        query = (places // classes)[..., None].expand(-1, -1, 4)
        return scores, places % classes, predictions.boxes.gather(1, query)


def postprocess_for(network: Detr | LwDetr) -> nn.Module:
    """The selection that goes with a network."""
    return DetrPostprocess() if isinstance(network, Detr) else LwDetrPostprocess(network.config.num_queries)
