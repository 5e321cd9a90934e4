"""Fixed positions of image patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINCOS_AMPLITUDE = 0.5
"""Absolute positions at half amplitude: what let towers trained from scratch localise (see
`VisionConfig.position`)."""


def sincos_positions(grid_size: tuple[int, int], width: int) -> Tensor:
    """Fixed two-dimensional positions of (rows, columns) of patches, float[rows * columns, width]:
    a quarter of the width each for sin and cos of x and y."""
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(1e4) / (width // 4)))
    angles = torch.arange(max(grid_size))[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[: grid_size[0], None].expand(-1, grid_size[1], -1)
    columns = axis[None, : grid_size[1]].expand(grid_size[0], -1, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)
