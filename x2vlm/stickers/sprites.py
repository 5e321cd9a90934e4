"""Sprites: the sticker atlas, shapes drawn by code, and the exact extent of a turned sprite."""

import math
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

from x2vlm.stickers.concepts import COLOURS, DATA, NAMES, SHAPES

TILE, COLUMNS = 96, 14
VISIBLE_ALPHA = 64
INK, RIM = (34, 32, 52), 24  # outline of shapes and its width, four times finer than the tile
_DIRECTIONS = np.radians(np.arange(0, 360, 5))


@cache
def _atlas() -> Image.Image:
    with (DATA / "sprites.png").open("rb") as file:
        return Image.open(file).convert("RGBA")


def _polar(corners: int, turn: float, *radii: float) -> list[tuple[float, float]]:
    """Corners of a polygon around (0.5, 0.5), its radii taken in turn; the first corner points at
    `turn` degrees."""
    angles = [math.radians(turn + 360 * index / corners) for index in range(corners)]
    return [
        (0.5 + radii[i % len(radii)] * math.cos(a), 0.5 + radii[i % len(radii)] * math.sin(a))
        for i, a in enumerate(angles)
    ]


def _heart() -> list[tuple[float, float]]:
    steps = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    x = 16 * np.sin(steps) ** 3
    y = -(13 * np.cos(steps) - 5 * np.cos(2 * steps) - 2 * np.cos(3 * steps) - np.cos(4 * steps))
    return [(0.5 + u / 32, 0.46 + v / 32) for u, v in zip(x, y)]


POLYGONS = {
    "square": [(0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)],
    "triangle": [(0.5, 0.06), (0.97, 0.9), (0.03, 0.9)],
    "star": _polar(10, -90, 0.5, 0.21),
    "heart": _heart(),
    "cross": [
        *((0.34, 0.03), (0.66, 0.03), (0.66, 0.34), (0.97, 0.34), (0.97, 0.66), (0.66, 0.66)),
        *((0.66, 0.97), (0.34, 0.97), (0.34, 0.66), (0.03, 0.66), (0.03, 0.34), (0.34, 0.34)),
    ],
    "arrow": [
        (0.02, 0.36),
        (0.52, 0.36),
        (0.52, 0.1),
        (0.98, 0.5),
        (0.52, 0.9),
        (0.52, 0.64),
        (0.02, 0.64),
    ],
}


def _draw_shape(shape: str, colour: str) -> Image.Image:
    """Inked like a cartoon: an outline that no colour or background changes is what shapes are told
    apart by."""
    big = 4 * TILE
    image = Image.new("RGBA", (big, big))
    draw = ImageDraw.Draw(image)
    fill = COLOURS[colour]
    if shape in ("circle", "ring"):
        draw.ellipse((8, 8, big - 8, big - 8), fill=fill, outline=INK, width=RIM)
        if shape == "ring":
            hole = (104, 104, big - 104, big - 104)
            draw.ellipse(hole, fill=(0, 0, 0, 0), outline=INK, width=RIM)
    else:
        inset = 8 + RIM / 2
        corners = [
            (x * (big - 2 * inset) + inset, y * (big - 2 * inset) + inset)
            for x, y in POLYGONS[shape]
        ]
        draw.polygon(corners, fill=fill)
        draw.line([*corners, corners[0], corners[1]], fill=INK, width=RIM, joint="curve")
    return image.resize((TILE, TILE), Image.Resampling.LANCZOS)


@cache
def sprite(kind: str, colour: str = "") -> Image.Image:
    """The `TILE` x `TILE` RGBA image of a sticker, or of a shape in a colour."""
    if kind in SHAPES:
        return _draw_shape(kind, colour)
    index = NAMES.index(kind)
    left, top = index % COLUMNS * TILE, index // COLUMNS * TILE
    return _atlas().crop((left, top, left + TILE, top + TILE))


@cache
def half_sprite(kind: str, colour: str = "") -> Image.Image:
    """The same at half the side, the better source for small targets."""
    return sprite(kind, colour).reduce(2)


@cache
def _outline(kind: str) -> np.ndarray:
    """(n, 2) outermost corners of the visible pixels, centred on the tile, in tile sides."""
    alpha = np.asarray(sprite(kind, "red" if kind in SHAPES else "").getchannel("A"))
    visible = alpha >= VISIBLE_ALPHA
    rows = np.flatnonzero(visible.any(1))
    first, last = visible[rows].argmax(1), TILE - visible[rows, ::-1].argmax(1)
    corners = np.concatenate(
        [np.stack([columns, rows + dy], 1) for columns in (first, last) for dy in (0, 1)]
    )
    along = corners @ np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)])
    return corners[np.unique(along.argmax(0))] / TILE - 0.5


@lru_cache(maxsize=8192)
def extent(kind: str, angle: int, flip: bool) -> tuple[float, float, float, float]:
    """Tight bounds (x0, y0, x1, y1) of a sprite after mirroring and turning by `angle` degrees
    clockwise about the tile's centre, in tile sides with the centre at 0."""
    points = _outline(kind) * ((-1, 1) if flip else (1, 1))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    (x0, y0), (x1, y1) = turned.min(0).tolist(), turned.max(0).tolist()
    return x0, y0, x1, y1


def box_size(kind: str, side: float, angle: int, flip: bool) -> tuple[float, float]:
    """Width and height of the tight box of a turned sprite whose longer side is `side`."""
    x0, y0, x1, y1 = extent(kind, angle, flip)
    scale = side / max(x1 - x0, y1 - y0)
    return scale * (x1 - x0), scale * (y1 - y0)
