"""From resized images to decoded detections: normalization, network and postprocessing, one module for all engines."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..images.resize import Resample
from ..models.boxes import Predictions, cxcywh_to_xyxy
from ..models.detr import Detr
from ..models.lwdetr import LwDetr


class EndToEnd(nn.Module):
    """Normalization, network, postprocessing and decoding of boxes.

    All but the network runs in float32, whatever the network's dtype.

    Args:
        network: from normalized pixels (B, 3, H, W) to `Predictions`.
        postprocess: from `Predictions` in float32 to scores (B, K), labels (B, K) and boxes (B, K, 4).
        scale: factor for the values 0…255.
        mean: of each channel, subtracted after scaling.
        std: of each channel, divided by last.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self, network: nn.Module, postprocess: nn.Module, *, scale: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.postprocess = postprocess
        deviation = torch.tensor(std, dtype=torch.float64)
        self.register_buffer("factor", (scale / deviation).float())
        self.register_buffer("offset", (-torch.tensor(mean, dtype=torch.float64) / deviation).float())

    def forward(self, images: Tensor, sizes: Tensor, filled: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects.

        Args:
            images: (B, H, W, 3) uint8 or float32 in 0…255, RGB, resized.
            sizes: (B, 2) height and width of each image before it was resized.
            filled: (B, 2) height and width of each resized image without padding, or None if none is padded.

        Returns:
            Boxes (B, K, 4) as x1, y1, x2, y2 in pixels of `sizes`, scores (B, K), labels (B, K).
        """
        predictions = self.network(self.normalize(images, filled).to(next(self.network.parameters()).dtype))
        scores, labels, boxes = self.postprocess(Predictions(*(output.float() for output in predictions)))
        if filled is not None:
            height, width = images.shape[1:3]
            sizes = torch.stack((sizes[:, 0] * height, sizes[:, 1] * width), dim=1) / filled
        return cxcywh_to_xyxy(boxes) * sizes.flip(1).repeat(1, 2)[:, None], scores, labels

    def normalize(self, images: Tensor, filled: Tensor | None = None) -> Tensor:
        """(B, H, W, 3) in 0…255 → (B, 3, H, W) float32, channels last in memory, zero outside `filled` (B, 2)."""
        height, width = images.shape[1:3]
        # whole rows are several times as fast as pixels of three channels
        rows = images.flatten(2).to(torch.float32, copy=True)
        rows = rows.mul_(self.factor.repeat(width)).add_(self.offset.repeat(width))
        pixels = rows.view(*images.shape).permute(0, 3, 1, 2)
        if filled is None:
            return pixels
        below, right = (
            torch.arange(side, dtype=filled.dtype, device=filled.device) >= filled[:, axis, None]
            for axis, side in enumerate((height, width))
        )
        return pixels.masked_fill((below[:, :, None] | right[:, None, :])[:, None], 0)


def images_dtype(resample: Resample) -> torch.dtype:
    """Type of the images that `EndToEnd` takes from a model that resizes its images in this way."""
    return torch.uint8 if resample.dtype is np.uint8 else torch.float32


class DetrPostprocess(nn.Module):
    """The most probable class of each query, other than no-object (DETR, section 3.1)."""

    def forward(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, Q), labels (B, Q) and boxes (B, Q, 4) as relative cx, cy, w, h."""
        scores, labels = predictions.logits.softmax(-1)[..., :-1].max(-1)
        return scores, labels, predictions.boxes


class LwDetrPostprocess(nn.Module):
    """The highest scores over all queries and classes; a query may yield several detections.

    Args:
        count: number of detections, unless there are fewer scores.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, K) in descending order, labels (B, K) and boxes (B, K, 4) as relative cx, cy, w, h; K ≤ count."""
        classes = predictions.logits.shape[-1]
        probabilities = predictions.logits.sigmoid().flatten(1)
        scores, indices = probabilities.topk(min(self.count, probabilities.shape[1]), dim=1)
        queries = (indices // classes)[..., None].expand(-1, -1, 4)
        return scores, indices % classes, predictions.boxes.gather(1, queries)


def postprocess_for(network: Detr | LwDetr) -> nn.Module:
    """Postprocessing of a network's family."""
    return DetrPostprocess() if isinstance(network, Detr) else LwDetrPostprocess(network.config.num_queries)
