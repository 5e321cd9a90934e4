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


def resize_relative_table(table: Tensor, rows: int) -> Tensor:
    """A table of relative-position biases for another window.

    Args:
        table: float[S * S + extra, heads]; the extra rows (BEiT's three for the class token) are
            kept as they are.
        rows: S' * S' + extra of the new table.

    Returns:
        float32[rows, heads].
    """
    source, target = math.isqrt(table.shape[0]), math.isqrt(rows)
    extra = table.shape[0] - source**2
    if source == target:
        return table
    distances = np.cumsum(geometric_ratio(source, target) ** np.arange(source // 2))
    grid = np.concatenate([-distances[::-1], [0.0], distances])
    wanted = np.arange(-(target // 2), target // 2 + 1, dtype=float)
    degree = min(3, source - 1)
    offsets = table[: source**2].double().numpy().T.reshape(-1, source, source)
    planes = [
        RectBivariateSpline(grid, grid, plane, kx=degree, ky=degree, s=0)(wanted, wanted)
        for plane in offsets
    ]
    resized = torch.from_numpy(np.stack(planes).reshape(len(planes), -1).T.copy()).float()
    return torch.cat([resized, table[source**2 :].float()]) if extra else resized


def resize_absolute_positions(positions: Tensor, tokens: int) -> Tensor:
    """CLIP's learned positions float[1, 1 + S * S, D] to float[1, tokens, D]: bicubic, the class
    token kept."""
    source, target = math.isqrt(positions.shape[1] - 1), math.isqrt(tokens - 1)
    grid = positions[:, 1:].float().unflatten(1, (source, source)).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid, size=(target, target), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([positions[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def resize_frame_positions(positions: Tensor, fresh: Tensor) -> Tensor:
    """Frame positions float[1, F, 1, D] copied as far as both go; further frames keep their `fresh`
    values."""
    shared = min(positions.shape[1], fresh.shape[1])
    return torch.cat([positions[:, :shared].to(fresh.dtype), fresh[:, shared:]], dim=1)
