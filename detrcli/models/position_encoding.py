"""Sine position encoding of a feature map (DETR, appendix A.4, "Spatial positional encoding")."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000


def sine_positions(rows: Tensor, columns: Tensor, channels: int) -> Tensor:
    """Encode where each cell of a feature map stands.

    Half of the channels encode the row and half the column, each as alternating sines and cosines of
    geometrically falling frequency.

    Args:
        rows: (B, H, W) row of each cell, in 0…2π.
        columns: (B, H, W) column of each cell, in 0…2π.
        channels: width of the encoding, a multiple of 4.

    Returns:
        (B, H, W, channels), in the dtype of `rows`.
    """
    exponent = torch.arange(channels // 4, dtype=rows.dtype, device=rows.device) * (4 / channels)
    wavelength = TEMPERATURE**exponent

    def encode(place: Tensor) -> Tensor:
        angle = place[..., None] / wavelength
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)

    return torch.cat((encode(rows), encode(columns)), dim=-1)


def grid_places(height: int, width: int, *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each cell of an unpadded map, scaled to 2π at the last: two tensors (1, H, W)."""
    rows = torch.arange(1, height + 1, dtype=dtype, device=device) * (2 * math.pi / (height + 1e-6))
    columns = torch.arange(1, width + 1, dtype=dtype, device=device) * (2 * math.pi / (width + 1e-6))
    return rows[None, :, None].expand(1, height, width), columns[None, None, :].expand(1, height, width)


def padded_places(padding: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Row and column of each cell, scaled to 2π at the last cell that is not padding.

    Args:
        padding: (B, H, W) bool, True where a cell is padding.
        dtype: of the answer.

    Returns:
        Two tensors (B, H, W).
    """
    image = ~padding
    rows = image.cumsum(1, dtype=dtype)
    columns = image.cumsum(2, dtype=dtype)
    rows = rows / (rows[:, -1:, :] + 1e-6) * (2 * math.pi)
    columns = columns / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
    return rows, columns
