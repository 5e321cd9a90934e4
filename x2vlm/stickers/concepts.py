"""The words of the sticker world: concepts, shapes, colours, families, plurals and the closed list
of answers."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from x2vlm.results import UNSURE

DATA = resources.files("x2vlm.stickers") / "data"
COLOURS = {
    "red": (222, 38, 38),
    "orange": (250, 140, 20),
    "yellow": (250, 216, 40),
    "green": (46, 160, 67),
    "blue": (36, 92, 220),
    "purple": (136, 56, 190),
    "pink": (255, 128, 188),
    "brown": (126, 78, 42),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "arrow")
CONTAINERS = ("circle", "square", "ring")
# Only families whose members nobody would dispute can be asked for by family name.
FAMILIES = ("animal", "vehicle", "building", "shape")
SIZES = ("small", "large")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
IRREGULAR_PLURALS = {
    "sheep": "sheep",
    "fish": "fish",
    "maple leaf": "maple leaves",
    "die": "dice",
    "volcano": "volcanoes",
}
BACKGROUNDS = {
    "plain": "on a plain background",
    "gradient": "on a gradient background",
    "striped": "on a striped background",
    "dotted": "on a dotted background",
    "checked": "on a checked background",
    "grass": "on grass",
    "beach": "at the beach",
    "night": "at night",
    "snow": "in the snow",
    "room": "in a room",
}
POSITIONS = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "centre": "in the centre",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}


@dataclass(frozen=True)
class Concept:
    """One sticker: its everyday name, other names, family, and the code point of its sprite."""

    name: str
    family: str
    code: str
    synonyms: tuple[str, ...]
    colours: tuple[str, ...]


CONCEPTS = tuple(
    Concept(**{key: tuple(value) if isinstance(value, list) else value for key, value in e.items()})
    for e in json.loads((DATA / "concepts.json").read_text(encoding="utf-8"))
)
NAMES = tuple(concept.name for concept in CONCEPTS)
FAMILY = {concept.name: concept.family for concept in CONCEPTS} | dict.fromkeys(SHAPES, "shape")
SURFACE = (
    {concept.name: (concept.name, *concept.synonyms) for concept in CONCEPTS}
    | {shape: (shape,) for shape in SHAPES}
    | {family: (family,) for family in FAMILIES}
)
HYPERNYMS = {
    "bird": ("duck", "owl", "penguin", "parrot", "flamingo"),
    "flower": ("sunflower", "rose"),
    "fruit": (
        *("apple", "banana", "lemon", "pear", "strawberry", "watermelon", "pineapple", "avocado"),
    ),
}
"""More general names than a kind's, besides `FAMILIES`."""
ALL_COLOURS = (*COLOURS, "black", "white", "grey")
STICKER_COLOURS = {concept.name: concept.colours for concept in CONCEPTS}
"""The colours of every sticker as its pixels show them: first the one that everybody names, or ""
where people would differ, then all that somebody might see."""
ANSWERS = (
    *("yes", "no", *NUMBERS, *COLOURS, *SIZES, *POSITIONS, *BACKGROUNDS, *SHAPES, *NAMES),
    *("black", "white", "grey", UNSURE),
)


@cache
def plural(noun: str) -> str:
    """The plural of a noun of this world: "two mice", "three churches"."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


# Every word form that names a kind or a family, in the singular and in the plural.
SINGULAR = {form: noun for noun, forms in SURFACE.items() for form in forms}
PLURAL = {plural(form): noun for form, noun in SINGULAR.items()}


def article(words: str) -> str:
    """`words` behind "a" or "an"."""
    vowel = (words[0] in "aeiou" and not words.startswith(("uni", "ufo"))) or words.startswith(
        "hour"
    )
    return f"an {words}" if vowel else f"a {words}"
