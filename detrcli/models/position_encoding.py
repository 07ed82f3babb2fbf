"""Sine position encoding of a feature map (DETR, appendix A.4, "Spatial positional encoding")."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000


def sine_encoding(rows: Tensor, columns: Tensor, channels: int) -> Tensor:
    """Encode pairs of coordinates as alternating sines and cosines of geometrically decreasing frequency.

    Args:
        rows: (…) angles in radians, encoded by the first half of the channels.
        columns: (…) angles in radians, encoded by the second half.
        channels: width of the encoding, a multiple of 4.

    Returns:
        (…, channels), in the dtype of `rows`.
    """
    exponent = torch.arange(channels // 4, dtype=rows.dtype, device=rows.device) * (4 / channels)
    wavelength = TEMPERATURE**exponent

    def encode(coordinate: Tensor) -> Tensor:
        angle = coordinate[..., None] / wavelength
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)

    return torch.cat((encode(rows), encode(columns)), dim=-1)


def grid_coordinates(height: int, width: int, *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns (1, H, W) of the cells of a feature map, scaled to 2π at the last cell."""
    rows = torch.arange(1, height + 1, dtype=dtype, device=device) * (2 * math.pi / (height + 1e-6))
    columns = torch.arange(1, width + 1, dtype=dtype, device=device) * (2 * math.pi / (width + 1e-6))
    return rows[None, :, None].expand(1, height, width), columns[None, None, :].expand(1, height, width)


def padded_coordinates(padding: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and columns (B, H, W) of the cells of a padded feature map, scaled to 2π at the last unpadded cell.

    Args:
        padding: (B, H, W) bool, True on padding.
        dtype: of the result.
    """
    image = ~padding
    rows = image.cumsum(1, dtype=dtype)
    columns = image.cumsum(2, dtype=dtype)
    rows = rows / (rows[:, -1:, :] + 1e-6) * (2 * math.pi)
    columns = columns / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
    return rows, columns
