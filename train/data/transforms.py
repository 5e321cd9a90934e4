"""Images for training: crop, flip, RandAugment, resize (the official transforms).

Images stay uint8 until they are on the training device (`x2vlm.processing.normalize`): a quarter of
the bytes to move. All randomness comes from the generator of the sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from x2vlm.config import sides
from x2vlm.media import upright_rgb
from x2vlm.processing import to_pixels

Augmentation = Literal["none", "pretrain", "train", "train_no_flip"]
"""`pretrain` and `train`: random crop of 20-100 % or 50-100 %, flip, RandAugment; `none`: resized
as at inference."""

GREY = (128, 128, 128)
MAGNITUDE = 0.7
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def augment(
    image: Image.Image,
    size: int | Sequence[int],
    kind: Augmentation,
    rng: np.random.Generator,
    flip: bool | None = None,
) -> Tensor:
    """uint8 (3, H, W) of `size`.

    Args:
        flip: True or False when the caller decides (see `may_flip`); None draws it where the
            augmentation flips.
    """
    if kind == "none":
        return to_pixels(image, size)
    image = upright_rgb(image)
    box = sample_resized_crop(image.width, image.height, 0.2 if kind == "pretrain" else 0.5, rng)
    image = image.resize(sides(size)[::-1], Image.Resampling.BICUBIC, box=box)
    if flip if flip is not None else kind != "train_no_flip" and rng.random() < 0.5:
        image = ImageOps.mirror(image)
    return to_pixels(rand_augment(image, rng), size)


def may_flip(texts: Iterable[str], rng: np.random.Generator) -> bool:
    """Random horizontal flip, disabled when a text says "left" or "right" as a whole word."""
    heads = rng.random() < 0.5
    return heads and not any(_SIDES.search(text) for text in texts)


def sample_resized_crop(
    width: int,
    height: int,
    min_scale: float,
    rng: np.random.Generator,
    ratios: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """A window (x0, y0, x1, y1) of `min_scale` to 1 of the area; after ten misses the largest
    centred one within `ratios`."""
    for _ in range(10):
        area = width * height * rng.uniform(min_scale, 1)
        ratio = math.exp(rng.uniform(math.log(ratios[0]), math.log(ratios[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = (
                int(rng.integers(0, width - w, endpoint=True)),
                int(rng.integers(0, height - h, endpoint=True)),
            )
            return x, y, x + w, y + h
    w, h = min(width, round(height * ratios[1])), min(height, round(width / ratios[0]))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def _shear(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, x, 0, y, 1, 0),
        Image.Resampling.BILINEAR,
        fillcolor=GREY,
    )


def _shift(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, 0, x, 0, 1, y),
        Image.Resampling.BILINEAR,
        fillcolor=GREY,
    )


PHOTOMETRIC = {
    "identity": lambda image, sign: image,
    "auto_contrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * MAGNITUDE),
    "sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * MAGNITUDE),
}
GEOMETRIC = {
    "shear_x": lambda image, sign: _shear(image, sign * 0.3 * MAGNITUDE, 0),
    "shear_y": lambda image, sign: _shear(image, 0, sign * 0.3 * MAGNITUDE),
    "translate_x": lambda image, sign: _shift(image, sign * 10 * MAGNITUDE, 0),
    "translate_y": lambda image, sign: _shift(image, 0, sign * 10 * MAGNITUDE),
    "rotate": lambda image, sign: image.rotate(
        sign * 30 * MAGNITUDE, Image.Resampling.BILINEAR, fillcolor=GREY
    ),
}


def rand_augment(
    image: Image.Image, rng: np.random.Generator, photometric_only: bool = False, num_ops: int = 2
) -> Image.Image:
    """Two operations drawn with replacement, each applied with probability 0.5 at magnitude 7 of
    10."""
    operations: Sequence = list(
        (PHOTOMETRIC if photometric_only else PHOTOMETRIC | GEOMETRIC).values()
    )
    for _ in range(num_ops):
        operation, apply, sign = (
            operations[rng.integers(len(operations))],
            rng.random() < 0.5,
            rng.choice((-1, 1)),
        )
        if apply:
            image = operation(image, int(sign))
    return image
