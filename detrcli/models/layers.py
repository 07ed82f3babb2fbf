"""Layers that all families use."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear layers with ReLUs between them, as in the box heads (DETR, section 3.2, "Prediction FFNs")."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(…, first width) → (…, last width)."""
        for index, layer in enumerate(self.layers):
            x = layer(F.relu(x) if index else x)
        return x
