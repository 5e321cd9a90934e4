"""Drawing scenes: background, stickers, then blur, noise, brightness and JPEG. Everything follows
from the scene."""

import io
import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from x2vlm.stickers.geometry import Item, Look, Scene
from x2vlm.stickers.sprites import TILE, extent, half_sprite, sprite

NOISE_SIDE = 512
# Backdrops are pale so that every sticker colour stands out.
PALE = (
    (250, 250, 250),
    (236, 236, 232),
    (225, 238, 250),
    (252, 240, 220),
    (228, 246, 228),
    (250, 230, 238),
)


def _vary(rng: random.Random, colour: tuple[int, ...], by: int = 8) -> tuple[int, ...]:
    return tuple(max(0, min(255, channel + rng.randint(-by, by))) for channel in colour)


def _blend(size: int, *colours: tuple[int, ...], sideways: bool = False) -> Image.Image:
    """A smooth blend of two or more colours from top to bottom (or left to right)."""
    strip = Image.new("RGB", (len(colours), 1) if sideways else (1, len(colours)))
    strip.putdata(list(colours))
    return strip.resize((size, size), Image.Resampling.BILINEAR)


def _plain(rng: random.Random, size: int) -> Image.Image:
    return Image.new("RGB", (size, size), _vary(rng, rng.choice(PALE)))


def _gradient(rng: random.Random, size: int) -> Image.Image:
    tints = (
        (255, 214, 196),
        (196, 222, 255),
        (205, 245, 214),
        (255, 244, 190),
        (232, 208, 250),
        (190, 240, 244),
    )
    return _blend(
        size, *(_vary(rng, tint) for tint in rng.sample(tints, 2)), sideways=rng.random() < 0.5
    )


def _texture_colours(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    base = _vary(rng, rng.choice(PALE))
    return base, tuple(channel - rng.randint(30, 52) for channel in base)


def _striped(rng: random.Random, size: int) -> Image.Image:
    base, dark = _texture_colours(rng)
    image = Image.new("RGB", (size, size), base)
    draw = ImageDraw.Draw(image)
    step = size / rng.randint(8, 14)
    slant = rng.choice((0, size // 2, -size // 2))
    for index in range(-20, 34):
        x = index * step
        draw.line([(x, -2), (x + slant, size + 2)], fill=dark, width=max(2, round(step * 0.4)))
    return image if rng.random() < 0.6 else image.transpose(Image.Transpose.ROTATE_90)


def _dotted(rng: random.Random, size: int) -> Image.Image:
    base, dark = _texture_colours(rng)
    image = Image.new("RGB", (size, size), base)
    draw = ImageDraw.Draw(image)
    step = size / rng.randint(8, 13)
    radius = step * 0.19
    for row in range(14):
        for column in range(15):
            x, y = (column + 0.5 * (row % 2)) * step, (row + 0.5) * step
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=dark)
    return image


def _checked(rng: random.Random, size: int) -> Image.Image:
    base, dark = _texture_colours(rng)
    cells = rng.randint(7, 11)
    board = Image.new("RGB", (cells, cells))
    board.putdata([dark if (i // cells + i % cells) % 2 else base for i in range(cells * cells)])
    return board.resize((size, size), Image.Resampling.NEAREST)


def _grass(rng: random.Random, size: int) -> Image.Image:
    image = _blend(size, _vary(rng, (176, 224, 128)), _vary(rng, (128, 196, 92)))
    draw = ImageDraw.Draw(image)
    blade = _vary(rng, (98, 168, 70))
    for _ in range(90):
        x, y, length = rng.random() * size, rng.random() * size, size * rng.uniform(0.02, 0.045)
        draw.line([(x - length / 3, y - length), (x, y), (x + length / 3, y - length)], fill=blade)
    return image


def _beach(rng: random.Random, size: int) -> Image.Image:
    sky, sea, sand = (
        _vary(rng, (190, 228, 250)),
        _vary(rng, (92, 184, 216)),
        _vary(rng, (244, 222, 166)),
    )
    image = _blend(size, (232, 246, 254), sky)
    draw = ImageDraw.Draw(image)
    horizon, shore = size * rng.uniform(0.26, 0.36), size * rng.uniform(0.5, 0.62)
    draw.rectangle([0, horizon, size, shore], fill=sea)
    wave = [
        (x, shore + size * 0.015 * math.sin(0.12 * x * 192 / size)) for x in range(0, size + 8, 4)
    ]
    draw.polygon([*wave, (size + 8, size), (0, size)], fill=sand)
    draw.line(wave, fill=(250, 252, 252), width=max(2, size // 64))
    return image


def _night(rng: random.Random, size: int) -> Image.Image:
    image = _blend(size, _vary(rng, (18, 22, 58)), _vary(rng, (52, 58, 112)))
    draw = ImageDraw.Draw(image)
    for _ in range(36):
        x, y, radius = rng.random() * size, rng.random() * size, size * rng.uniform(0.002, 0.005)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(206, 212, 240))
    return image


def _snow(rng: random.Random, size: int) -> Image.Image:
    image = _blend(size, _vary(rng, (164, 186, 212)), _vary(rng, (206, 220, 236)))
    draw = ImageDraw.Draw(image)
    hill = size * rng.uniform(0.6, 0.72)
    draw.ellipse([-0.4 * size, hill, 1.4 * size, hill + size], fill=(240, 245, 250))
    for _ in range(60):
        x, y, radius = rng.random() * size, rng.random() * size, size * rng.uniform(0.004, 0.01)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 255, 255))
    return image


def _room(rng: random.Random, size: int) -> Image.Image:
    wall = _vary(
        rng, rng.choice(((246, 228, 204), (220, 232, 228), (236, 220, 232), (240, 236, 210)))
    )
    floor = _vary(rng, rng.choice(((190, 140, 96), (206, 164, 120), (170, 128, 98))))
    image = Image.new("RGB", (size, size), wall)
    draw = ImageDraw.Draw(image)
    corner = size * rng.uniform(0.58, 0.72)
    draw.rectangle([0, corner, size, size], fill=floor)
    for index in range(-6, 18):
        x = index * size / 11
        draw.line(
            [(x, corner), (size / 2 + (x - size / 2) * 1.7, size)],
            fill=tuple(c - 22 for c in floor),
        )
    draw.rectangle([0, corner - size * 0.025, size, corner], fill=(250, 248, 244))
    return image


PAINTERS = {
    "plain": _plain,
    "gradient": _gradient,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "grass": _grass,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
    "room": _room,
}


def paint_background(background: str, look: Look, size: int) -> Image.Image:
    """The empty image of a background; its details follow from `look.seed`."""
    return PAINTERS[background](random.Random(look.seed), size)


def paste_item(image: Image.Image, item: Item) -> None:
    """Draw one sticker so that its visible pixels fill its box (to a pixel); `picture` is square,
    RGB or RGBA."""
    size = image.width
    x0, y0, x1, y1 = extent(item.kind, item.angle, item.flip)
    cx, cy, w, h = (size * value for value in item.box)
    source = sprite(item.kind, item.colour)
    scale = TILE * max(x1 - x0, y1 - y0) / max(w, h)  # tile pixels per image pixel
    if scale >= 1.7:
        source, scale = half_sprite(item.kind, item.colour), scale / 2
    left, top = math.floor(cx - w / 2) - 1, math.floor(cy - h / 2) - 1
    right, bottom = math.ceil(cx + w / 2) + 1, math.ceil(cy + h / 2) + 1
    # Where the tile's centre falls in the patch, then the inverse map patch -> tile that
    # Image.transform wants.
    ax = cx - (x0 + x1) / 2 * source.width / scale - left
    ay = cy - (y0 + y1) / 2 * source.width / scale - top
    cos, sin = (
        scale * math.cos(math.radians(item.angle)),
        scale * math.sin(math.radians(item.angle)),
    )
    mirror = -1 if item.flip else 1
    half = source.width / 2
    matrix = (mirror * cos, mirror * sin, half - mirror * (cos * ax + sin * ay))
    matrix += (-sin, cos, half + sin * ax - cos * ay)
    patch = source.transform(
        (right - left, bottom - top), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    image.paste(patch, (left, top), patch)


@cache
def _noise() -> np.ndarray:
    """A fixed field of unit noise, in 1/32, from which every image takes its own window."""
    return np.random.default_rng(0).normal(0, 32, (NOISE_SIDE, NOISE_SIDE, 3)).astype(np.int16)


def disturb(image: Image.Image, look: Look) -> Image.Image:
    """Blur, noise, brightness and JPEG as the look says."""
    if look.blur:
        image = image.filter(ImageFilter.GaussianBlur(look.blur * image.width / 192))
    if look.noise or look.brightness != 1.0:
        pixels = np.asarray(image).astype(np.int16)
        if look.brightness != 1.0:
            pixels = (pixels * round(64 * look.brightness)) >> 6
        if look.noise:
            rng = random.Random(look.seed)
            rows, columns = (np.arange(image.width) + rng.randrange(NOISE_SIDE) for _ in range(2))
            field = _noise().take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
            pixels = pixels + ((field * round(look.noise * 8)) >> 8)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if look.jpeg:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=look.jpeg)
        image = Image.open(buffer).convert("RGB")
    return image


def render(scene: Scene, size: int = 192) -> Image.Image:
    """The RGB image of a scene, `size` x `size` pixels."""
    image = paint_background(scene.background, scene.look, size)
    for item in scene.items:
        paste_item(image, item)
    return disturb(image, scene.look)
