"""Fixed positions of image patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINCOS_AMPLITUDE = 0.5
"""Absolute positions at half amplitude: what let towers trained from scratch localise (see
`VisionConfig.position`)."""


def sincos_positions(grid_size: int, width: int) -> Tensor:
    """Fixed two-dimensional positions, float[grid_size**2, width]: a quarter of the width each for
    sin and cos of x and y."""
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(1e4) / (width // 4)))
    angles = torch.arange(grid_size)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[:, None].expand(-1, grid_size, -1)
    columns = axis[None].expand(grid_size, -1, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)
