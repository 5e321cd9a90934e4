"""Texts that suit an image, made from what a caption says of it."""

from __future__ import annotations

import re

from .state import Texts

RELATIONS = (
    "and|with|on|in|at|next to|near|above|below|inside|left of|right of|to the left of|to "
    "the right of|of|by|over|under|behind|through|while|wearing|holding"
)
SPLIT = re.compile(rf"[,;]|\b(?:{RELATIONS})\b")
OPENING = re.compile(r"^(?:there (?:is|are)|an? (?:picture|photo|video|image) of|is|are)\s+", re.I)
ARTICLE = re.compile(r"^(?:a|an|the|some|his|her|its|their|two|three|four|five)\s+", re.I)
MOST = 4


def phrases_of(caption: str) -> str:
    """The noun-like parts of a caption, one a line."""
    parts = (OPENING.sub("", part.strip(" .")).strip() for part in SPLIT.split(caption))
    return "\n".join([part for part in dict.fromkeys(parts) if part][:MOST])


def texts_of(caption: str) -> Texts:
    """What to ask about an image that a model described so."""
    phrases = phrases_of(caption)
    nouns = [ARTICLE.sub("", phrase) for phrase in phrases.split("\n") if phrase]
    questions = tuple(f"is there a {noun}?" for noun in nouns[:3])
    others = "\n".join(f"a picture of {noun}" for noun in nouns[:3])
    return Texts(
        question=questions[0] if questions else "",
        phrases=phrases or caption,
        text=caption,
        texts="\n".join(dict.fromkeys(f"{caption}\n{others}".strip().split("\n"))),
        questions=questions,
    )
