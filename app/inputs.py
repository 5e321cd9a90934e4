"""What a visitor typed, checked against the limits; every check raises the sentence to show."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from x2vlm.errors import ParameterError, TextError
from x2vlm.results import Explanation

from . import limits


def lines(text: str | list[str] | None, most: int, what: str) -> list[str]:
    """Split at line breaks and `;`, drop what is empty.

    Raises:
        TextError: nothing is left (`text/empty`), a line is too long or there are more than `most`
            (`text/long`).
    """
    parts = text if isinstance(text, list) else re.split(r"[\n;]", _checked(text, what))
    parts = [_checked(part, what).strip() for part in parts]
    parts = [part for part in parts if _says_something(part)]
    if not parts:
        raise TextError(f"No {what} given. Write at least one, one per line.", "text/empty")
    if len(parts) > most:
        raise TextError(
            f"{len(parts)} {what}s given; the limit is {most}. Send them in several rounds.",
            "text/long",
        )
    return parts


def phrases(text: str | list[str] | None) -> list[str]:
    return lines(text, limits.PHRASES, "phrase")


def texts(text: str | list[str] | None) -> list[str]:
    return lines(text, limits.TEXTS, "text")


def choices(text: str | list[str] | None) -> list[str] | None:
    """Own answers to rank; None where none are given."""
    return lines(text, limits.CHOICES, "choice") if text else None


def question(typed: str | None) -> str:
    return sentence(typed, "question")


def text(typed: str | None) -> str:
    return sentence(typed, "text")


def sentence(text: str | None, what: str) -> str:
    """One text, stripped.

    Raises:
        TextError: empty (`text/empty`) or longer than the limit (`text/long`).
    """
    text = _checked(text, what).strip()
    if not _says_something(text):
        raise TextError(f"The {what} is empty. Write it in words and try again.", "text/empty")
    return text


def _says_something(text: str) -> bool:
    """Anything but spaces, controls and invisible characters."""
    return any(unicodedata.category(character)[0] not in "ZC" for character in text)


def _checked(text: object, what: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TextError(
            f"The {what} must be text, not {type(text).__name__}. Send a string.", "text/type"
        )
    if len(text) > limits.LETTERS:
        raise TextError(
            f"The {what} has {len(text)} letters; the limit is {limits.LETTERS}. Shorten it.",
            "text/long",
        )
    return text


def number(value: object, name: str, low: float, high: float, whole: bool = True) -> int | float:
    """A number inside its range.

    Raises:
        ParameterError: not a number or outside (`param/range`).
    """
    is_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ParameterError(
            f"{name} must be {kind} from {low} to {high}. Change it and try again.", "param/range"
        )
    return int(value) if whole else float(value)


def region(
    sides: tuple[float | None, ...], size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The drawn or typed box, clipped to the picture; None where nothing is set.

    Raises:
        ParameterError: only some sides set, or no area left (`box/invalid`).
    """
    if not any(sides):  # an empty field of the page comes as 0
        return None
    if any(side is None or not math.isfinite(side) for side in sides):
        raise ParameterError(
            "The region needs all four sides. Fill in left, top, right and bottom.", "box/invalid"
        )
    (x1, x2), (y1, y2) = (sorted((sides[k], sides[k + 2])) for k in (0, 1))
    width, height = size
    box = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise ParameterError(
            "The region lies outside the picture or has no area. Draw it again on the picture.",
            "box/invalid",
        )
    return box


def needed_region(
    sides: tuple[float | None, ...], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """As `region`, but there must be one."""
    box = region(sides, size)
    if box is None:
        raise ParameterError(
            "No region is set. Draw one on the picture or type its four sides.", "box/invalid"
        )
    return box


def needed_map(explanation: Explanation | None) -> Explanation:
    """The maps in view, for what works on them."""
    if explanation is None:
        raise ParameterError("There is no map in view. Press Show the map first.", "param/range")
    return explanation


def frame_numbers(text: str) -> tuple[int, ...] | None:
    """Numbers typed with commas or spaces; None where nothing is typed.

    Raises:
        ParameterError: not numbers, or too many (`param/range`).
    """
    parts = _checked(text, "list of frames").replace(",", " ").split()
    if (
        not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts)
        or len(parts) > limits.FRAMES
    ):
        raise ParameterError(
            f"Frame numbers are up to {limits.FRAMES} whole numbers with commas, such as 0, 4, 8.",
            "param/range",
        )
    return tuple(sorted({int(part) for part in parts})) or None


def frames(numbers: list[int] | None) -> tuple[int, ...] | None:
    """Frame numbers of a call; None where none are given.

    Raises:
        ParameterError: not a list of whole numbers, or too many (`param/range`).
    """
    if numbers is None:
        return None
    if not isinstance(numbers, list):
        raise ParameterError("frames must be a list of whole numbers.", "param/range")
    return frame_numbers(" ".join(map(str, numbers)))


def box(sides: list[float] | None) -> tuple[float, float, float, float] | None:
    """The region of a call; None where none is given.

    Raises:
        ParameterError: not four numbers with an area (`box/invalid`).
    """
    if sides is None:
        return None
    numbers = isinstance(sides, list) and all(
        isinstance(side, int | float) and math.isfinite(side) for side in sides
    )
    if not numbers or len(sides) != 4 or sides[2] - sides[0] < 1 or sides[3] - sides[1] < 1:
        raise ParameterError(
            "region must be four numbers, x1, y1, x2, y2 in pixels of the upright image, with "
            "x1 < x2 and y1 < y2.",
            "box/invalid",
        )
    return tuple(sides)


def caption_options(
    do_sample: bool,
    num_beams: float,
    num_captions: float,
    min_length: float,
    max_new_tokens: float,
    top_p: float,
    temperature: float,
    seed: float,
    prefix: str | None,
) -> dict[str, Any]:
    """Checked options of `Predictor.caption`."""
    longest = number(max_new_tokens, "The longest caption", 1, limits.NEW_TOKENS)
    return {
        "num_beams": number(num_beams, "Beams", 1, limits.BEAMS),
        "num_captions": number(num_captions, "Candidates", 1, limits.CAPTIONS),
        "min_length": number(min_length, "The shortest caption", 0, longest) or None,
        "max_new_tokens": longest,
        "do_sample": do_sample,
        "top_p": number(top_p, "Top-p", 0.01, 1, whole=False),
        "temperature": number(temperature, "Temperature", 0.01, 10, whole=False),
        "seed": number(seed, "The seed", 0, 2**31 - 1),
        "prefix": _checked(prefix, "beginning").strip() or None,
    }


def which(chosen: str) -> int | str | None:
    """A layer or head as chosen in a list: a number, a word such as `mean`, or None for the
    default."""
    return int(chosen) if chosen.isdigit() else None if chosen == "default" else chosen


def answer_options(mode: str, typed: str | list[str] | None) -> dict[str, Any]:
    """Checked options of `Predictor.answer`; own choices turn generation into ranking."""
    own = choices(typed)
    return {
        "top_k": limits.TOP_ANSWERS,
        "mode": "rank" if own else None if mode == "auto" else mode,
        "choices": own,
    }


def thresholds(absent_below: float, found_from: float) -> tuple[float, float]:
    """Match scores under the first are "probably not here", from the second on "found"."""
    low = number(absent_below, "The lower match score", 0, 1, whole=False)
    return low, number(found_from, "The upper match score", low, 1, whole=False)


def filled(template: str | None, texts: list[str]) -> list[str]:
    """Each text put into the template, where there is one."""
    template = _checked(template, "template").strip()
    if template and "{}" not in template:
        raise TextError("The template has no {}. Write {} where the text shall stand.", "text/type")
    return [template.replace("{}", text) if template else text for text in texts]
