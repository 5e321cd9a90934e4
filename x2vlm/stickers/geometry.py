"""When a relation or a position holds between boxes: strictly (safe to assert) or leniently (not
safe to deny).

A generated text asserts only what holds strictly and denies only what does not even hold leniently;
the caption checker accepts what holds leniently. Boxes are (cx, cy, w, h) in [0, 1]. `Item` and
`Scene` are the dataclass tree of a scene.
"""

import math
from dataclasses import dataclass

from x2vlm.stickers.concepts import CONTAINERS

Box = tuple[float, float, float, float]
RELATIONS = ("left of", "right of", "above", "below", "next to", "inside")
INVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "next to": "next to",
}


@dataclass(frozen=True)
class Item:
    """One sticker or shape. `colour` is "" for stickers, `size` is "" where it changes; `angle` in
    degrees clockwise."""

    kind: str
    colour: str
    size: str
    box: Box
    angle: int
    flip: bool


@dataclass(frozen=True)
class Look:
    """How the image is drawn and disturbed: a seed for the details, blur radius in 1/192 of the
    side, noise in grey levels, brightness factor, JPEG quality (0: none)."""

    seed: int
    blur: float
    noise: float
    brightness: float
    jpeg: int


@dataclass(frozen=True)
class Scene:
    """A whole image; items lie in drawing order."""

    background: str
    items: tuple[Item, ...]
    look: Look


def contains(outer: Item, inner: Item) -> bool:
    """True when `inner` lies wholly on a circle, square or ring."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = outer.box, inner.box
    return (
        outer.kind in CONTAINERS and abs(ax - bx) <= (aw - bw) / 2 and abs(ay - by) <= (ah - bh) / 2
    )


def holds(a: Item, relation: str, b: Item, strict: bool) -> bool:
    """True when "a <relation> b" holds.

    left of: the centre of a is further left, by a clear step, and less far up or down than 0.6 of
    that (strict, and the boxes part horizontally) or 1.2 of it (lenient); right of, above, below
    likewise. next to: the gap between the boxes is at most 0.05 (strict) or 0.11 (lenient) of the
    side. inside: a lies wholly on a circle, square or ring.
    """
    if a is b:
        return False
    if contains(b, a) or contains(a, b):
        return relation == "inside" and contains(b, a)
    if relation == "inside":
        return False
    dx, dy = b.box[0] - a.box[0], b.box[1] - a.box[1]
    gap_x = abs(dx) - (a.box[2] + b.box[2]) / 2
    gap_y = abs(dy) - (a.box[3] + b.box[3]) / 2
    if relation == "next to":
        return math.hypot(max(gap_x, 0.0), max(gap_y, 0.0)) <= (0.05 if strict else 0.11)
    along, across, gap = {
        "left of": (dx, dy, gap_x),
        "right of": (-dx, dy, gap_x),
        "above": (dy, dx, gap_y),
        "below": (-dy, dx, gap_y),
    }[relation]
    if strict:
        return along >= 0.1 and gap >= -0.005 and abs(across) <= 0.6 * along
    return along >= 0.03 and abs(across) <= 1.2 * along


def _bands(value: float, names: tuple[str, str, str], margin: float) -> list[str]:
    limits = (-1.0, 1 / 3, 2 / 3, 2.0)
    return [
        name
        for name, low, high in zip(names, limits, limits[1:])
        if low + margin <= value <= high - margin
    ]


def positions(item: Item, strict: bool) -> list[str]:
    """What may be said of the place of the item's centre in the 3 x 3 grid of `POSITIONS`.

    Strictly: the one cell it lies in, if it lies there with a margin of 0.05. Leniently: every cell
    within 0.05, and as what is at the top left is on the left too, "left" and "top" with it.
    """
    margin = 0.05 if strict else -0.05
    rows = _bands(item.box[1], ("top", "", "bottom"), margin)
    columns = _bands(item.box[0], ("left", "", "right"), margin)
    cells = [f"{row} {column}".strip() or "centre" for row in rows for column in columns]
    return (
        cells
        if strict
        else list(dict.fromkeys([*cells, *filter(None, rows), *filter(None, columns)]))
    )


def union(items: list[Item]) -> Box:
    """The smallest box (cx, cy, w, h) around all items."""
    x0 = min(item.box[0] - item.box[2] / 2 for item in items)
    y0 = min(item.box[1] - item.box[3] / 2 for item in items)
    x1 = max(item.box[0] + item.box[2] / 2 for item in items)
    y1 = max(item.box[1] + item.box[3] / 2 for item in items)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
