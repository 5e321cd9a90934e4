"""Rules for texts that need no tokenizer: which texts are refused, the official cleaning, and
pieces of a tokenizer as whole words.

Cleaning keeps, for every character of its result, the index of the character of the user's text
that it comes from, so that words and cuts are reported in the user's characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from x2vlm.errors import TextError
from x2vlm.results import Word

MAX_CHARACTERS = 10_000
"""A longer text is refused before any tokenising."""
QUESTION_WORDS = 50
"""Words of a question that are read, as in the official evaluation. Two spaces in a row enclose an
empty word, which counts."""

_PUNCTUATION = r"[,.'!?\"()*#:;~/-]"
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True)
class CleanText:
    """A cleaned text.

    Attributes:
        text: the cleaned text.
        origin: for each of its characters, the index of the character in the user's text that it
            comes from.
        cut_at: index in the user's text from which words were left out, None if none were.
    """

    text: str
    origin: list[int]
    cut_at: int | None = None


def validate_text(text: object, field: str = "text") -> None:
    """Refuse what no tokenizer can read.

    Raises:
        TextError: not a string (`text/type`), too long (`text/long`), nothing visible
            (`text/empty`).
    """
    if not isinstance(text, str):
        raise TextError(
            f"The {field} must be text, not {type(text).__name__}. Send it as a string.",
            "text/type",
        )
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            f"The {field} has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}. Shorten "
            f"it.",
            "text/long",
        )
    if all(unicodedata.category(character)[0] in "CZ" for character in text):
        raise TextError(f"The {field} is empty. Write a few words.", "text/empty")


def clean_caption(text: str) -> str:
    """The official caption rules (`pre_caption`): lower case, punctuation to spaces, spaces
    collapsed.

    Raises:
        TextError: nothing is left (`text/empty`).
    """
    cleaned = clean(text, "caption").text
    if not cleaned:
        raise TextError(
            "The caption has no words, only punctuation. Write a few words.", "text/empty"
        )
    return cleaned


def clean_question(text: str) -> str:
    """The official question rules (`pre_question`): as for captions, but spaces are kept and count
    as empty words; the first `QUESTION_WORDS` words are kept."""
    return clean(text, "question").text


def clean(text: str, rules: str) -> CleanText:
    """The text by the `caption` or `question` rules; empty if it holds only punctuation."""
    origin = [i for i, character in enumerate(text) for _ in character.lower()]
    text = text.lower()
    text, origin = _substitute(_PUNCTUATION, " ", text, origin)
    if rules == "question":
        return _first_words(text.rstrip(" "), origin, QUESTION_WORDS)
    text, origin = _substitute(r"<(?=person>)|(?<=<person)>", "", text, origin)
    text, origin = _substitute(r"\s{2,}", " ", text, origin)
    kept = text.rstrip("\n").strip(" ")
    start = len(text) - len(text.lstrip(" "))
    return CleanText(kept, origin[start : start + len(kept)])


def _first_words(text: str, origin: list[int], most: int) -> CleanText:
    words = text.split(" ")
    kept = " ".join(words[:most])
    cut_at = origin[len(kept) + 1] if len(words) > most else None
    return CleanText(kept, origin[: len(kept)], cut_at)


def _substitute(
    pattern: str, replacement: str, text: str, origin: list[int]
) -> tuple[str, list[int]]:
    """`re.sub` with a replacement of at most one character, origins kept."""
    parts, origins, last = [], [], 0
    for match in re.finditer(pattern, text):
        parts += [text[last : match.start()], replacement]
        origins += origin[last : match.start()] + [origin[match.start()]] * len(replacement)
        last = match.end()
    return "".join([*parts, text[last:]]), origins + origin[last:]


def merge_words(
    text: str, spans: Sequence[tuple[int, int]], word_ids: Sequence[int | None]
) -> tuple[list[Word], list[int]]:
    """Pieces to whole words, and for every piece the index of its word.

    Args:
        text: the user's text.
        spans: start and end of every piece in `text`.
        word_ids: the tokenizer's number of the word that a piece belongs to. In a script without
            spaces every piece is a word, although SentencePiece gives whole sentences one number.
    """
    bounds: list[tuple[int, int]] = []
    word_index = []
    for (start, end), word_id, previous in zip(spans, word_ids, [None, *word_ids], strict=False):
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if bounds and word_id == previous and bounds[-1][0] == bounds[-1][1]:
            bounds[-1] = (start, end)  # a lone SentencePiece mark joins the piece after it
        elif bounds and word_id == previous and not _starts_word(text[start:end]):
            bounds[-1] = (bounds[-1][0], max(end, bounds[-1][1]))
        else:
            bounds.append((start, end))
        word_index.append(len(bounds) - 1)
    return [Word(text[start:end], start, end) for start, end in bounds], word_index


def _starts_word(piece: str) -> bool:
    return unicodedata.name(piece[:1] or " ", "").startswith(_UNSPACED_SCRIPTS)
