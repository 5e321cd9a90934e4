"""Images of results: boxes, heat, legends, contact sheets. PIL and numpy in, PIL out.

Colours are safe for colour-blind eyes and never alone: every box has a number, an absent thing is
dashed. A map that is flat is drawn in one colour, never stretched to full contrast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from x2vlm.errors import ParameterError
from x2vlm.media import upright_rgb
from x2vlm.results import Grounding

PALETTE = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#882255",
    "#44AA99",
    "#DDDDDD",
)
"""Ten colours: Okabe and Ito's seven, and three of Tol's."""

FLAT = 1e-6
"""A map whose values differ by less has no contrast: it is drawn in one colour and has no peak."""


def draw_boxes(
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    dashed: Sequence[bool] | None = None,
    numbers: Sequence[int] | None = None,
) -> Image.Image:
    """A copy of the image with boxes, each with a badge `number label` at its top left corner.

    Args:
        boxes: `(x1, y1, x2, y2)` in pixels of `image` as it stands upright, opposite corners in any
            order.
        labels: text after the number; none by default.
        colors: by default `PALETTE` in turn, by number.
        dashed: broken lines, for what is probably not there.
        numbers: 1, 2, 3... by default.
    """
    canvas = upright_rgb(image)
    boxes = [(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in boxes]
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 160))
    font = ImageFont.load_default(size=max(11, round(min(canvas.size) / 28)))
    numbers = numbers or range(1, len(boxes) + 1)
    badges = []
    for i, (box, number) in enumerate(zip(boxes, numbers, strict=True)):
        color = colors[i] if colors else PALETTE[(number - 1) % len(PALETTE)]
        dash = 5 * line if dashed and dashed[i] else 0
        _outline(draw, box, "black", line + 2, dash)
        _outline(draw, box, color, line, dash)
        badges.append((box, f"{number} {labels[i]}" if labels else str(number), color))
    taken: list[tuple[float, ...]] = []
    for box, text, color in badges:  # last, so that no line runs through a text
        taken.append(_badge(draw, box, text, color, font, canvas.size, taken))
    return canvas


def draw_groundings(
    image: Image.Image, groundings: Sequence[Grounding], show_labels: bool = True
) -> Image.Image:
    """The boxes of `Predictor.ground` on their image: phrase and match on the badge, dashed where
    the verdict is absent."""
    labels = [g.phrase if g.match is None else f"{g.phrase} {g.match:.2f}" for g in groundings]
    boxes = [g.box_xyxy for g in groundings]
    dashed = [g.verdict == "absent" for g in groundings]
    return draw_boxes(image, boxes, labels if show_labels else None, dashed=dashed)


def annotate_frames(
    frames: Sequence[Image.Image], groundings: Sequence[Sequence[Grounding]]
) -> list[Image.Image]:
    """Each frame of a video with its own groundings; a phrase keeps its number and colour through
    the video."""
    return [draw_groundings(frame, found) for frame, found in zip(frames, groundings, strict=True)]


def is_flat(map2d: np.ndarray) -> bool:
    """Whether a map has no contrast to speak of (`FLAT`), and so no peak."""
    return bool(np.ptp(map2d) < FLAT)


def heat_range(maps: np.ndarray) -> tuple[float, float]:
    """The scale that several maps can share: from their lowest (at most 0) to their highest
    value."""
    return min(0.0, float(np.min(maps))), float(np.max(maps))


def overlay_heatmap(
    image: Image.Image,
    map2d: np.ndarray,
    opacity: float = 0.5,
    colormap: str = "viridis",
    value_range: tuple[float, float] | None = None,
    threshold: float = 0.0,
    smooth: bool = True,
) -> Image.Image:
    """The image under a colour map of its patch grid.

    Args:
        map2d: float (grid, grid), top row first; it covers the whole image.
        opacity: of the colours, 0 to 1.
        colormap: a matplotlib name; `viridis` and `cividis` are safe for colour-blind eyes.
        value_range: values of the first and last colour; `heat_range(map2d)` by default. Give one
            to compare several maps.
        threshold: fraction of the range below which the image stays as it is. Above it the colours
            come up smoothly, over as much of the range again; at 0 all of the image is coloured.
        smooth: interpolate; False shows the patches.

    Raises:
        ParameterError: opacity or threshold outside 0 to 1, unknown colour map, or not a finite 2-D
            map (`param/range`).
    """
    map2d = np.asarray(map2d, dtype=np.float32)
    if map2d.ndim != 2 or not np.isfinite(map2d).all():
        raise ParameterError(
            "A heat map must be a two-dimensional array of finite numbers.", "param/range"
        )
    for name, value in (("Opacity", opacity), ("Threshold", threshold)):
        if not 0 <= value <= 1:
            raise ParameterError(
                f"{name} {value} is outside 0 to 1. Choose a number in between.", "param/range"
            )
    low, high = value_range or heat_range(map2d)
    scaled = np.zeros_like(map2d) if high - low < FLAT else (map2d - low) / (high - low)
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    picture = upright_rgb(image)
    heat = np.asarray(Image.fromarray(scaled).resize(picture.size, resampling))
    levels = Image.fromarray((heat.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    colored = levels.convert("P")
    colored.putpalette(_lookup_table(colormap).tobytes())
    strength = opacity * _rise(np.linspace(0, 1, 256), threshold)
    return Image.composite(
        colored.convert("RGB"), picture, levels.point((255 * strength).round().astype(int).tolist())
    )


def _rise(heat: np.ndarray, threshold: float) -> np.ndarray:
    """0 below the threshold, then a smooth step up to 1 over as much of the scale again, or what is
    left of it."""
    width = min(threshold, 1 - threshold)
    if width == 0:  # all of the image, or the hottest level alone
        return (heat >= threshold).astype(float)
    t = ((heat - threshold) / width).clip(0, 1)
    return t * t * (3 - 2 * t)


def colorbar(
    value_range: tuple[float, float], colormap: str = "viridis", width: int = 320, height: int = 48
) -> Image.Image:
    """A horizontal legend with the lowest, middle and highest value; one colour where the range is
    flat."""
    low, high = value_range
    canvas = Image.new("RGB", (width, height), "white")
    flat = high - low < FLAT
    levels = np.zeros(width, int) if flat else np.linspace(0, 255, width).round().astype(int)
    strip = np.broadcast_to(_lookup_table(colormap)[levels], (height // 2, width, 3))
    canvas.paste(Image.fromarray(np.ascontiguousarray(strip)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(10, height // 3))
    if flat:
        texts = [(0, "la", f"flat: {low:.3g}")]
    else:
        texts = [
            (0, "la", f"{low:.3g}"),
            (width // 2, "ma", f"{(low + high) / 2:.3g}"),
            (width - 1, "ra", f"{high:.3g}"),
        ]
    for x, anchor, text in texts:
        draw.text((x, height // 2 + 2), text, "black", font, anchor=anchor)
    return canvas


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 4,
    tile: int = 240,
) -> Image.Image:
    """Pictures in rows, each fitted into `tile` x `tile` pixels, with its caption (cut to the tile)
    below.

    Raises:
        ParameterError: no images, or not one caption per image (`param/range`).
    """
    if not images or (captions is not None and len(captions) != len(images)):
        raise ParameterError(
            "A contact sheet needs pictures, and one caption for each or none at all.",
            "param/range",
        )
    gap, font = 8, ImageFont.load_default(size=max(11, tile // 16))
    strip = font.size * 3 // 2 if captions else 0
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new(
        "RGB", (columns * (tile + gap) + gap, rows * (tile + strip + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(map(upright_rgb, images)):
        x, y = gap + i % columns * (tile + gap), gap + i // columns * (tile + strip + gap)
        scale = tile / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (tile - width) // 2, y + (tile - height) // 2))
        if captions:
            draw.text(
                (x + tile // 2, y + tile + 2),
                _fit(captions[i], font, tile),
                "black",
                font,
                anchor="ma",
            )
    return sheet


@functools.cache
def _lookup_table(colormap: str) -> np.ndarray:
    """uint8 (256, 3) of a matplotlib colour map."""
    import matplotlib

    if colormap not in matplotlib.colormaps:
        raise ParameterError(
            f"Unknown colour map {colormap[:40]!r}. Choose for example viridis or cividis.",
            "param/range",
        )
    return matplotlib.colormaps[colormap](np.arange(256), bytes=True)[:, :3].copy()


def _outline(
    draw: ImageDraw.ImageDraw, box: Sequence[float], color: str, width: int, dash: int
) -> None:
    """The four sides of a box, in strokes of `dash` pixels if that is not 0."""
    x1, y1, x2, y2 = box
    if not dash:
        draw.rectangle((x1, y1, x2, y2), outline=color, width=width)
        return
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        length = math.dist(start, end)
        for i in range(0, math.ceil(length), 2 * dash):
            ends = [i / length, min((i + dash) / length, 1)]
            draw.line(
                [
                    (start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t)
                    for t in ends
                ],
                color,
                width,
            )


def _badge(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    color: str,
    font,
    size: tuple[int, int],
    taken: Sequence[tuple[float, ...]],
) -> tuple[float, ...]:
    """Text on a filled plate above the box's corner, moved so that it stays in the image and covers
    no plate that is `taken`; returns the plate."""
    text = _fit(text, font, size[0] - 8)
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 8, bottom - top + 6
    x = min(max(box[0], 0), max(size[0] - width, 0))
    y = box[1] - height if box[1] >= height else min(max(box[1], 0), max(size[1] - height, 0))
    steps = sorted(range(-len(taken), len(taken) + 1), key=abs)
    plates = [(x, y + k * (height + 1), x + width, y + k * (height + 1) + height) for k in steps]
    plates = [plate for plate in plates if plate[1] >= 0 and plate[3] <= size[1]]
    free = (plate for plate in plates if not any(_overlap(plate, other) for other in taken))
    x, y, *_ = plate = next(free, (x, y, x + width, y + height))
    draw.rectangle(plate, fill=color)
    red, green, blue = Image.new("RGB", (1, 1), color).getpixel((0, 0))
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
    draw.text((x + 4 - left, y + 3 - top), text, ink, font)
    return plate


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _fit(text: str, font, width: int) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())[:200]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
