"""Words grouped into phrases that can be explained: things ("the red car") and relations ("left
of").

English by rule: closed lists of function words and of spatial words, and the endings -ing and -ed.
A text in which no English function word is known keeps each word as a phrase of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from x2vlm.results import Word


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


DETERMINERS = _words(
    """
    a an the this that these those its his her their our my your some any every each no another
    both all either neither
    """
)
FUNCTION = DETERMINERS | _words(
    """
    and or but nor so than as if then also there here it he she they we you i who whose whom
    which what where when why how is are was were be been being am do does did have has had can
    could will would shall should may might must not of in on at with without by to from for
    into onto off up down out about while very too just only more most many much number picture
    photo image exactly please me tell show see
    """
)
"""Words that name nothing in an image; they end a phrase and have no map."""
SIDES = "left right top bottom front back side middle center centre edge rear end"
RELATIONS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:(?:to|on|at|in) )?(?:the )?(?:{SIDES.replace(' ', '|')}) of\b",
        r"(?:right )?next to\b|close to\b|far from\b|in between\b|out of\b",
        r"(?:above|below|under|underneath|beneath|over|behind|beside|besides|near|inside|outside"
        r"|around|between|through|across|along|against|atop|opposite|towards?|onto|into)\b",
    )
)
"""Spatial relations at the start of the rest of a text, in lower case."""
MEASURES = _words(
    """
    bunch group pair slice piece cup glass bowl plate couple lot herd row pile crowd set stack
    box basket bottle kind type sort pieces slices glasses
    """
)
"""Nouns that "of" joins with what follows: "a slice of pizza"."""
QUESTION_NOUNS = _words(
    """
    color colour kind type sort shape size time
    """
)
"""Nouns behind "what" or "which" that name what is asked for, not a thing in the image."""
NOUNS_IN_ING = _words(
    """
    building ring king wing string clothing painting ceiling evening morning spring thing
    railing wedding sling swing bed sled shed red
    """
)


@dataclass(frozen=True)
class Span:
    """A phrase before it is explained.

    Attributes:
        words: positions of its words in the text.
        reading: first and last word of the text that explains it: the phrase itself, or for a
            relation what stands on both sides of it too.
    """

    words: tuple[int, ...]
    reading: tuple[int, int]


def split_phrases(text: str, words: Sequence[Word]) -> tuple[Span, ...]:
    """The phrases of a text in their order; function words are in none of them."""
    spoken = [text[word.start : word.end].lower() for word in words]
    if len(spoken) > 4 and not FUNCTION.intersection(spoken):
        named = [i for i, word in enumerate(spoken) if _is_word(word)]
        return tuple(Span((i,), (i, i)) for i in named)
    found: list[tuple[tuple[int, ...], bool]] = []
    run: list[int] = []

    def close() -> None:
        while run and spoken[run[-1]] in FUNCTION:  # "the", with nothing behind it
            run.pop()
        if run:
            found.append((tuple(run), False))
        run.clear()

    at = 0
    while at < len(words):
        if at and not text[words[at - 1].end : words[at].start].isspace():
            close()
        length = _relation_length(spoken, at, bool(run))
        if length:
            close()
            found.append((tuple(range(at, at + length)), True))
        elif _joins(spoken, at, run):
            run.append(at)
        elif spoken[at] in DETERMINERS:
            close()
            run.append(at)
        elif spoken[at] in FUNCTION or not _is_word(spoken[at]) or _is_asked(spoken, at):
            close()
        else:
            run.append(at)
        at += max(length, 1)
    close()
    return tuple(
        Span(words, _reading(found, k) if is_relation else (words[0], words[-1]))
        for k, (words, is_relation) in enumerate(found)
    )


def _is_word(word: str) -> bool:
    return any(unicodedata.category(character)[0] in "LNS" for character in word)


def _is_asked(spoken: Sequence[str], at: int) -> bool:
    """ "colour" in "what colour"."""
    return spoken[at] in QUESTION_NOUNS and at > 0 and spoken[at - 1] in ("what", "which")


def _joins(spoken: Sequence[str], at: int, run: list[int]) -> bool:
    """ "of" in "a slice of pizza", and a determiner behind it."""
    if spoken[at] == "of":
        return bool(run) and run[-1] == at - 1 and spoken[at - 1] in MEASURES
    return spoken[at] in DETERMINERS and bool(run) and spoken[run[-1]] == "of"


def _relation_length(spoken: Sequence[str], at: int, behind_thing: bool) -> int:
    """How many words from here are a spatial relation or an action; 0 for none."""
    rest = " ".join(spoken[at : at + 5])
    for pattern in RELATIONS:
        if match := pattern.match(rest):
            return len(match[0].split())
    if not behind_thing or not _is_action(spoken, at):
        return 0
    following = spoken[at + 1] if at + 1 < len(spoken) else ""
    if more := _relation_length(spoken, at + 1, False):
        return 1 + more
    return 2 if following in ("on", "in", "at", "with", "by", "to") else 1


def _is_action(spoken: Sequence[str], at: int) -> bool:
    """ "sitting" in "a man sitting on", not in "a sitting man"."""
    word = spoken[at]
    if not word.endswith(("ing", "ed")) or word in NOUNS_IN_ING or len(word) < 5:
        return False
    behind_noun = at > 0 and spoken[at - 1] not in FUNCTION
    return behind_noun and (at + 1 == len(spoken) or spoken[at + 1] in FUNCTION)


def _reading(found: Sequence[tuple[tuple[int, ...], bool]], k: int) -> tuple[int, int]:
    """From the phrase before a relation to the one behind it."""
    return found[max(k - 1, 0)][0][0], found[min(k + 1, len(found) - 1)][0][-1]
