"""Texts that suit an image, made from what a caption says of it."""

from __future__ import annotations

import re

from x2vlm.inference.phrases import split_phrases
from x2vlm.results import Word

from .state import Texts

WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
NOUN = re.compile(r"(?:an?|the|some|his|her|its|their|two|three|four|five)\s+(?=\w)", re.I)
MOST = 4


def phrases_of(caption: str) -> str:
    """The things that a caption names, one a line."""
    words = [Word(m[0], m.start(), m.end(), None) for m in WORD.finditer(caption)]
    spans = [span.words for span in split_phrases(caption, words)]
    texts = [caption[words[span[0]].start : words[span[-1]].end] for span in spans]
    things = [text for text in dict.fromkeys(texts) if NOUN.match(text)]
    return "\n".join(things[:MOST])


def texts_of(caption: str) -> Texts:
    """What to ask about an image that a model described so."""
    phrases = phrases_of(caption)
    nouns = [NOUN.sub("", phrase, count=1) for phrase in phrases.split("\n") if phrase]
    questions = tuple(f"is there a {noun}?" for noun in nouns[:3])
    others = "\n".join(f"a picture of {noun}" for noun in nouns[:3])
    return Texts(
        question=questions[0] if questions else "",
        phrases=phrases or caption,
        text=caption,
        texts="\n".join(dict.fromkeys(f"{caption}\n{others}".strip().split("\n"))),
        questions=questions,
    )
