"""Texts that suit an image, made from what a caption says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from x2vlm.inference.phrases import split_phrases
from x2vlm.results import Caption, Word

from .state import Texts
from .tab import Asker

WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
COUNTS = ("two", "three", "four", "five")
NOUN = re.compile(rf"(?:an?|the|some|his|her|their|{'|'.join(COUNTS)})\s+(?=\w)", re.I)
# Verbs without -ing that captions put behind a thing: "a dog runs through the snow".
VERB = re.compile(
    r"(?: (?:is|are|sits?|stands?|runs?|walks?|jumps?|rides?|plays?|holds?|looks?|lies|lays|rests?"
    r"|poses?|does|wears?|swims?|climbs?))+$"
)
COLOURS = "black white red green blue yellow orange brown pink purple gr[ae]y".replace(" ", "|")
# "an orange" of "an orange and white dog", "a kitchen kitchen", and what is no thing.
NO_THING = re.compile(rf"\S+(?: (?:{COLOURS}))+|.*\b(\w+) \1\b.*|the (?:background|camera|air)")
MOST = 4
NEUTRAL = "a picture"  # offered where nothing that the model says of the image is sure


def phrases_of(caption: str) -> str:
    """The things that a caption names, one a line."""
    words = [Word(m[0], m.start(), m.end(), None) for m in WORD.finditer(caption)]
    spans = [span.words for span in split_phrases(caption, words)]
    texts = [VERB.sub("", caption[words[span[0]].start : words[span[-1]].end]) for span in spans]
    things = [text for text in dict.fromkeys(texts) if NOUN.match(text)]
    return "\n".join([text for text in things if not NO_THING.fullmatch(text)][:MOST])


def question_about(phrase: str) -> str:
    """A question to which the answer is yes where the thing is there."""
    first = phrase.split()[0].lower()
    start = (
        "is there" if first in ("a", "an") else "are there" if first in COUNTS else "can you see"
    )
    return f"{start} {phrase}?"


def texts_of(captions: Sequence[Caption], ask: Asker) -> Texts:
    """What to ask about an image that a model described so, as far as the model stands by it: the
    best caption whose match is sure, those of its phrases that are found and about which it
    answers yes; a neutral text where it is sure of nothing."""
    sure_from = ask.info.thresholds[1]
    sure = next((one.text for one in captions if (one.match or 0) >= sure_from), "")
    named = phrases_of(sure).split("\n")
    found = (ask.tried("ground", named, explain=False) if sure else ()) or ()
    asked = {one.phrase: question_about(one.phrase) for one in found if one.verdict == "found"}
    answers = {phrase: ask.tried("answer", question) for phrase, question in asked.items()}
    phrases = [phrase for phrase, said in answers.items() if said and said.best == "yes"]
    texts = [sure] if phrases == named else []
    texts += [f"a picture of {phrase}" for phrase in phrases]
    return Texts(
        question=asked[phrases[0]] if phrases else "",
        phrases="\n".join(phrases),
        text=texts[0] if texts else NEUTRAL,
        texts="\n".join(texts or [NEUTRAL]),
        questions=tuple(asked[phrase] for phrase in phrases),
    )
