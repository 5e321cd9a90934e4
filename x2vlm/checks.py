"""Checks of what a caller hands in: numbers, boxes, lists of texts, and whether the caller wants to
stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Protocol

from x2vlm.errors import Cancelled, ParameterError

Progress = Callable[[float, str], None]
"""Called with (fraction done, what is being done)."""


class Cancel(Protocol):
    """A flag of the caller, for example a `threading.Event`; looked at between stages."""

    def is_set(self) -> bool:
        """Whether to stop."""


def check_cancel(cancel: Cancel | None) -> None:
    """Raises:
    Cancelled: the flag is set (`job/cancelled`).
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled("Stopped on request; nothing was changed.", "job/cancelled")


def report(progress: Progress | None, fraction: float, message: str) -> None:
    """Tells the caller, if there is one who wants to know."""
    if progress is not None:
        progress(fraction, message)


def check_number(name: str, value: Any, low: float, high: float, whole: bool = True) -> Any:
    """The number itself, an int where `whole`.

    Raises:
        ParameterError: not a number in [low, high] (`param/range`).
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ParameterError(f"{name} must be {kind} from {low:g} to {high:g}.", "param/range")
    return int(value) if whole else float(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """The value itself.

    Raises:
        ParameterError: not one of the choices (`param/range`).
    """
    if value not in choices:
        raise ParameterError(f"{name} must be one of: {', '.join(choices)}.", "param/range")
    return value


def check_texts(name: str, texts: str | Sequence[str], most: int) -> list[Any]:
    """One text or several as a list; the texts themselves are checked when they are tokenised.

    Raises:
        ParameterError: none, or more than `most` (`param/range`).
    """
    listed = [texts] if isinstance(texts, str) or not isinstance(texts, Sequence) else list(texts)
    if not 1 <= len(listed) <= most:
        raise ParameterError(
            f"Give 1 to {most:,} {name}; these are {len(listed):,}.", "param/range"
        )
    return listed


def looks_like_fractions(
    values: Sequence[float], sides: tuple[float, float], size: tuple[float, float]
) -> bool:
    """Whether a box that should be in pixels seems to be in fractions of the image's sides.

    Args:
        values: the four numbers of the box, corners or corner and sides.
        sides: (width, height) of the box.
        size: (width, height) of the image, in which a box of one pixel may be all there is.
    """
    if min(sides) <= 0:
        return False
    within = all(-0.05 <= value <= 1.05 for value in values) and max(size) > 1
    return within or max(sides) < 1


def wrong_unit(values: Sequence[float], size: tuple[int, int]) -> str:
    """What is said of a box for which `looks_like_fractions` holds, with the pixels it may mean."""
    box = f"The box ({', '.join(f'{value:.6g}' for value in values)})"
    if max(map(abs, values)) > 1.05:
        return f"{box} is smaller than a pixel. Give it in pixels, not in fractions of the sides."
    pixels = [value * side for value, side in zip(values, (*size, *size), strict=True)]
    return (
        f"{box} seems to be in fractions of the sides. Give it in pixels: in this picture of "
        f"{size[0]} x {size[1]} that is ({', '.join(f'{value:.1f}' for value in pixels)})."
    )


def check_box(
    box_xyxy: Sequence[float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The box clipped to the image, as fractions of its sides.

    Args:
        box_xyxy: left, top, right, bottom in pixels.
        size: (width, height) of the image.

    Raises:
        ParameterError: not four finite numbers, fractions, inverted, or without area inside the
            image (`box/invalid`).
    """
    try:
        edges = [float(edge) for edge in box_xyxy]
    except (TypeError, ValueError, OverflowError):
        edges = []
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        raise ParameterError(
            "A box is four numbers: left, top, right, bottom in pixels.", "box/invalid"
        )
    x1, y1, x2, y2 = edges
    if looks_like_fractions(edges, (x2 - x1, y2 - y1), size):
        raise ParameterError(wrong_unit(edges, size), "box/invalid")
    x1, x2 = (min(max(edge / size[0], 0.0), 1.0) for edge in edges[0::2])
    y1, y2 = (min(max(edge / size[1], 0.0), 1.0) for edge in edges[1::2])
    if x2 <= x1 or y2 <= y1:
        raise ParameterError(
            f"The box has no area inside the picture of {size[0]} x {size[1]} pixels. Give left, "
            f"top, right, bottom in pixels.",
            "box/invalid",
        )
    return x1, y1, x2, y2
