"""Boxes of annotation files: checked, and put from pixels into fractions.

Files state (x, y, w, h) in pixels, top-left corner first; records hold (cx, cy, w, h) as fractions
of the image's sides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from x2vlm.checks import looks_like_fractions, wrong_unit
from x2vlm.errors import DataError

SLACK = 1.0
"""Pixels by which a box may leave its image: some files count them from one, or both ends."""
ROUNDING = 0.1
"""Pixels that a box may leave its image by the rounding of the file alone."""
FRACTION_SLACK = 0.01
"""The same of boxes in fractions."""
LEFT_OUT = "left out as fractions: they should be in pixels"


def to_fractions(box_xywh: Any, width: int, height: int) -> list[float]:
    """A box in pixels -> (cx, cy, w, h) as fractions, cut to the image.

    Raises:
        DataError: it is no box of this image, or seems to be in fractions (`data/box`).
    """
    x, y, w, h = check_numbers(box_xywh, "x, y, width, height")
    shown = repr(box_xywh)[:60]
    if w <= 0 or h <= 0:
        raise DataError(f"The box {shown} has no area.", "data/box")
    if looks_like_fractions((x, y, w, h), (w, h), (width, height)):
        raise DataError(wrong_unit(box_xywh, (width, height)), "data/box")
    if x < 0 or y < 0 or x + w > width + SLACK or y + h > height + SLACK:
        raise DataError(
            f"The box {shown} leaves the picture of {width} x {height} pixels.", "data/box"
        )
    w, h = min(w, width - x), min(h, height - y)
    if w <= 0 or h <= 0:
        raise DataError(
            f"The box {shown} lies outside the picture of {width} x {height} pixels.", "data/box"
        )
    return [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]


def check_fractions(box_cxcywh: Any) -> None:
    """Raises `DataError` (`data/box`) for what is no (cx, cy, w, h) in fractions."""
    cx, cy, w, h = check_numbers(box_cxcywh, "center x, center y, width, height")
    edges = (cx - w / 2, cy - h / 2, 1 - cx - w / 2, 1 - cy - h / 2)
    if min(w, h) <= 0 or min(edges) < -FRACTION_SLACK:
        raise DataError(
            f"The box {repr(box_cxcywh)[:60]} is not center x, center y, width, height in "
            "fractions of the picture's sides, which this format wants. Divide pixels by the width "
            "and height of the picture.",
            "data/box",
        )


def check_numbers(box: Any, meaning: str) -> Sequence[float]:
    """The box, if it is four finite numbers. Raises `DataError` (`data/box`)."""
    shown = repr(box)[:60]
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise DataError(f"The box {shown} is not four numbers {meaning}.", "data/box")
    numbers = (isinstance(value, (int, float)) and math.isfinite(value) for value in box)
    if not all(numbers):
        raise DataError(f"The box {shown} holds what is no finite number.", "data/box")
    return box


def check_units(boxes: Iterable[Sequence[float]], file: str) -> None:
    """Raises `DataError` (`data/box`) when most boxes (x, y, w, h) of a file seem to be in
    fractions."""
    found = Counter(looks_like_fractions(box, box[2:], (math.inf,) * 2) for box in boxes)
    if found[True] > found[False]:
        raise DataError(
            f"{found[True]} of {found.total()} boxes of {file} are smaller than a pixel, as "
            "fractions of the sides would be. Write x, y, width, height in pixels: multiply by the "
            "width and height of the picture.",
            "data/box",
        )


def inside(box_xywh: list[float], width: int, height: int, problems: Counter) -> list[float] | None:
    """The part of a box in pixels within its image; None when there is none, or the box seems to be
    in fractions. What is changed or left out is counted in `problems`."""
    x, y, w, h = box_xywh
    if looks_like_fractions(box_xywh, (w, h), (width, height)):
        problems[LEFT_OUT] += 1
        return None
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right - left < 1 or bottom - top < 1:
        problems["without area"] += 1
        return None
    cut = max(left - x, top - y, x + w - right, y + h - bottom)
    if cut <= 0:
        return [x, y, w, h]
    problems["cut to the picture"] += cut > ROUNDING
    return [left, top, right - left, bottom - top]


def say_of_boxes(problems: Counter) -> None:
    """Prints what `inside` changed."""
    print(
        ", ".join(f"{count} boxes {problem}" for problem, count in problems.items() if count)
        or "no box needed a change"
    )
