"""Captions of scenes in Korean and Chinese: what the first English caption says, in their own words
and order. They show what it takes to teach a model another language."""

from __future__ import annotations

import json
from typing import Literal

from x2vlm.stickers.concepts import DATA, FAMILY, NUMBERS
from x2vlm.stickers.geometry import Scene
from x2vlm.stickers.language import Description, groups

Language = Literal["ko", "zh"]
_WORDS = json.loads((DATA / "translations.json").read_text(encoding="utf-8"))
"""language -> {"words": English -> translation, "counters": family -> the word behind a number};
a translation that begins with a counter of its own has a space behind it ("匹 马")."""


def translated_captions(scene: Scene, language: Language) -> list[str]:
    """Numbers, colours and kinds from left to right with the background; then numbers and kinds
    alone."""
    background = _WORDS[language]["words"][scene.background]
    texts = []
    for detail, ending in ((1, [background]), (0, [])):
        phrases = [_phrase(said, language) for said, _ in groups(scene.items, detail)]
        texts.append(", ".join(phrases + ending))
    return list(dict.fromkeys(texts))


def _phrase(said: Description, language: Language) -> str:
    """ "two red stars": 빨간 별 두 개, 两颗红色的星星."""
    words = _WORDS[language]["words"]
    number, colour = words[NUMBERS[said.count]], words.get(said.colour, "")
    noun, counter = words[said.noun], _WORDS[language]["counters"][FAMILY[said.noun]]
    if language == "ko":
        return " ".join(part for part in (colour, noun, number, counter) if part)
    own, space, rest = noun.rpartition(" ")
    return f"{number}{own if space else counter}{colour}{rest}"
