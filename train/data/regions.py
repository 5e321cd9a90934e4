"""Regions of an image: a crop that keeps one of them whole, their texts and boxes (X²-VLM, section
3.1).

Boxes here are `(x, y, w, h)` in pixels, top-left corner first, as the annotation files have them;
targets leave as `(cx, cy, w, h)` in fractions of the model's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WHOLE_IMAGE = (0.5, 0.5, 1.0, 1.0)


@dataclass(frozen=True)
class RegionText:
    """One text and what it describes: box (cx, cy, w, h) in [0, 1]; `is_image` when that is the
    whole image. `shown` is equal for texts of the same region or the same whole image."""

    text: str
    box_cxcywh: tuple[float, float, float, float]
    shown: int
    is_image: bool = False


def sample_crop(
    box_xywh: tuple[int, int, int, int], width: int, height: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """A window (x0, y0, x1, y1) of the image that contains the whole box."""
    x, y, w, h = box_xywh
    return (
        int(rng.integers(0, x, endpoint=True)),
        int(rng.integers(0, y, endpoint=True)),
        int(rng.integers(min(x + w, width), width, endpoint=True)),
        int(rng.integers(min(y + h, height), height, endpoint=True)),
    )


def box_in_crop(
    box_xywh: tuple[float, float, float, float],
    crop: tuple[int, ...],
    flip: bool = False,
    min_share: float = 0.5,
) -> tuple[float, float, float, float] | None:
    """The visible part of the box as (cx, cy, w, h) fractions of the crop; None if not more than
    `min_share` of it is seen."""
    x, y, w, h = box_xywh
    x0, y0, x1, y1 = crop
    left, top, right, bottom = max(x, x0), max(y, y0), min(x + w, x1), min(y + h, y1)
    if (
        w <= 0
        or h <= 0
        or right <= left
        or bottom <= top
        or (right - left) * (bottom - top) / (w * h) <= min_share
    ):
        return None
    width, height = x1 - x0, y1 - y0
    center = ((left + right) / 2 - x0) / width
    return (
        1 - center if flip else center,
        ((top + bottom) / 2 - y0) / height,
        (right - left) / width,
        (bottom - top) / height,
    )
