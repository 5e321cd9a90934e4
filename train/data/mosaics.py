"""Views of photos: crops, and mosaics of several photos on one canvas, each a function of its
generator.

A mosaic teaches where things are without a single human box: what is said of a tile is true of an
exactly known box. Boxes are (x0, y0, x1, y1) as fractions of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

TILES = {1: 0.15, 2: 0.4, 3: 0.25, 4: 0.14, 5: 0.03, 6: 0.03}
"""Number of tiles -> its share of the mosaics; few and large ones teach first and most."""
SIDES = {
    1: (0.4, 0.85),
    2: (0.35, 0.7),
    3: (0.3, 0.55),
    4: (0.28, 0.48),
    5: (0.22, 0.4),
    6: (0.2, 0.35),
}
"""Number of tiles -> range of a tile's sides."""
HIDDEN = 0.2
"""At most this share of a tile lies under later ones."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """A window of a photo, perhaps mirrored; the window is (x0, y0, x1, y1) in fractions."""

    window: Box = (0.0, 0.0, 1.0, 1.0)
    flip: bool = False

    def cut(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The view as an image of `width` x `height` pixels."""
        x0, y0, x1, y1 = self.window
        box = (x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height)
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        return ImageOps.mirror(image) if self.flip else image


@dataclass(frozen=True)
class Tile:
    """Photo number `photo` seen through `view`, placed at `box` of the canvas."""

    photo: int
    view: View
    box: Box


def sample_view(rng: np.random.Generator, least: float = 0.7) -> View:
    """A window with sides of `least` to 1, mirrored half of the time."""
    width, height = rng.uniform(least, 1, 2)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return View((x, y, x + width, y + height), bool(rng.random() < 0.5))


def sample_tiles(rng: np.random.Generator, photos: int) -> list[Tile]:
    """Where which photos stand; later tiles lie over earlier ones."""
    count = int(rng.choice(list(TILES), p=list(TILES.values())))
    chosen = rng.choice(photos, count, replace=False)
    boxes = (
        _split(rng, count) if count in (2, 3, 4) and rng.random() < 0.3 else _scatter(rng, count)
    )
    return [
        Tile(int(photo), sample_view(rng, 0.8), box)
        for photo, box in zip(chosen, boxes, strict=False)
    ]


def _split(rng: np.random.Generator, count: int) -> list[Box]:
    """The canvas cut into `count` parts without gaps, the largest part first."""
    boxes: list[Box] = [(0.0, 0.0, 1.0, 1.0)]
    while len(boxes) < count:
        boxes.sort(key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        x0, y0, x1, y1 = boxes.pop()
        share = rng.uniform(0.35, 0.65)
        if (x1 - x0) * rng.uniform(0.7, 1.4) > y1 - y0:
            middle = x0 + share * (x1 - x0)
            boxes += [(x0, y0, middle, y1), (middle, y0, x1, y1)]
        else:
            middle = y0 + share * (y1 - y0)
            boxes += [(x0, y0, x1, middle), (x0, middle, x1, y1)]
    return boxes


def _scatter(rng: np.random.Generator, count: int) -> list[Box]:
    """Free places; a box that would hide too much of an earlier one is drawn again, then left
    out."""
    boxes: list[Box] = []
    for _ in range(count):
        for _ in range(20):
            width, height = rng.uniform(*SIDES[count], 2)
            x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            box = (x, y, x + width, y + height)
            if all(_covered(earlier, box) <= HIDDEN for earlier in boxes):
                boxes.append(box)
                break
    return boxes


def _covered(box: Box, over: Box) -> float:
    """Share of `box` that lies under `over`."""
    width = max(0.0, min(box[2], over[2]) - max(box[0], over[0]))
    height = max(0.0, min(box[3], over[3]) - max(box[1], over[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


def draw_mosaic(
    tiles: list[Tile],
    read: Callable[[int], Image.Image],
    size: int,
    rng: np.random.Generator,
    photos: int,
    draw: bool = True,
) -> tuple[Image.Image | None, int | None]:
    """The canvas, and the number of the photo that is its background (None: a plain colour).

    Args:
        read: the photo of a number.
        draw: False only says what the background would be.
    """
    background = int(rng.integers(photos)) if rng.random() < 0.4 else None
    if not draw:
        return None, background
    if background is None:
        canvas = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(0, 256, 3)))
    else:
        canvas = sample_view(rng).cut(read(background), size, size)
    for tile in tiles:
        x0, y0, x1, y1 = (round(edge * size) for edge in tile.box)
        canvas.paste(tile.view.cut(read(tile.photo), x1 - x0, y1 - y0), (x0, y0))
    return canvas, background
