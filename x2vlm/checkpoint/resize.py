"""Fits position parameters of one image size, or video length, to another.

Relative-position tables follow the official rule (BEiT's fine-tuning code): the old offsets are
spread on a grid whose steps grow geometrically, as if nearby offsets kept their place and far ones
moved out, and read off by a cubic spline.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from torch import Tensor


def geometric_ratio(source: int, target: int) -> float:
    """Growth q of the step such that `source // 2` steps reach `target // 2`, by bisection on
    [1.01, 1.5].

    The last midpoint evaluated is the answer, as in the official code.
    """
    left, right, middle, steps = 1.01, 1.5, 1.01, source // 2
    while right - left > 1e-6:
        middle = (left + right) / 2
        if (1 - middle**steps) / (1 - middle) > target // 2:
            right = middle
        else:
            left = middle
    return middle


def resize_relative_table(
    table: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """A table of relative-position biases for another window.

    The official rule knows squares only; other windows follow it along each side.

    Args:
        table: float[(2h - 1) * (2w - 1) + extra, heads] of a window of h x w; the extra rows
            (BEiT's three for the class token) are kept as they are.
        source, target: (height, width) of the windows.

    Returns:
        float32 for `target`; the table itself where the windows are the same.
    """
    if source == target:
        return table
    offsets = math.prod(2 * side - 1 for side in source)
    axes = [_axis(2 * old - 1, 2 * new - 1) for old, new in zip(source, target, strict=True)]
    (rows, wanted_rows), (columns, wanted_columns) = axes
    planes = table[:offsets].double().numpy().T.reshape(-1, 2 * source[0] - 1, 2 * source[1] - 1)
    for axis, side in ((1, source[0]), (2, source[1])):
        planes = planes.repeat(2, axis) if side == 1 else planes  # a spline needs two points
    resized = [
        RectBivariateSpline(
            rows, columns, plane, kx=min(3, len(rows) - 1), ky=min(3, len(columns) - 1), s=0
        )(wanted_rows, wanted_columns)
        for plane in planes
    ]
    resized = torch.from_numpy(np.stack(resized).reshape(len(planes), -1).T.copy()).float()
    return torch.cat([resized, table[offsets:].float()])


def _axis(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the offsets of one side are, and where the new ones are read off."""
    wanted = np.arange(-(target // 2), target // 2 + 1, dtype=float)
    if source == target:
        return wanted, wanted
    if source == 1:
        return np.array([-1.0, 1.0]), np.zeros(target)
    distances = np.cumsum(geometric_ratio(source, target) ** np.arange(source // 2))
    return np.concatenate([-distances[::-1], [0.0], distances]), wanted


def resize_absolute_positions(
    positions: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """CLIP's learned positions float[1, 1 + h * w, D] of (rows, columns) of patches to those of
    `target`: bicubic, the class token kept."""
    grid = positions[:, 1:].float().unflatten(1, source).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=target, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def resize_frame_positions(positions: Tensor, fresh: Tensor) -> Tensor:
    """Frame positions float[1, F, 1, D] copied as far as both go; further frames keep their `fresh`
    values."""
    shared = min(positions.shape[1], fresh.shape[1])
    return torch.cat([positions[:, :shared].to(fresh.dtype), fresh[:, shared:]], dim=1)
