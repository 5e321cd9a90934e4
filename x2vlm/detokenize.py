"""Where people write spaces between words and marks.

BERT's tokenizer splits a text at every mark and forgets the spaces around it, so that its own
decoding writes "t - shirt", "5 : 30" and "10, 000". The rules here follow English usage. Some texts
are ambiguous ("100,200" may be two numbers); the more frequent reading is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CLOSING = set(".,!?;:)]}%°”…")  # no space before
_OPENING = set("([{$£€¥#“¿¡")  # no space after
_JOINING = set("/\\_@")  # no space on either side
_APOSTROPHES = {"'", "’"}
_ENDINGS = {"s", "t", "m", "d", "re", "ve", "ll"}  # of "dog's", "don't", "i'm", ...
_ELISIONS = set("cdjlnoy")  # of "l'eau", "o'clock", "y'all"
_DOMAINS = {"com", "org", "net", "edu", "gov"}


def spaces_before(words: Sequence[str]) -> list[bool]:
    """For each word or mark of a text, whether a space stands before it; False for the first.

    Args:
        words: words, numbers and single marks, as BERT's pre-tokenizer splits a text.
    """
    spaces = [_space(words, i) for i in range(len(words))]
    _place_quotes(words, spaces, {'"'})
    _place_quotes(words, spaces, _APOSTROPHES)
    return spaces


def _space(words: Sequence[str], i: int) -> bool:
    """Whether a space stands before word `i`; quotation marks and apostrophes come later."""
    if i == 0:
        return False
    left, right = words[i - 1], words[i]
    before, after = _at(words, i - 2), _at(words, i + 1)
    if left in _OPENING or left in _JOINING or right in _CLOSING or right in _JOINING:
        return False
    if right == "-":
        return left != "-" and (after == "-" or not (_is_word(left) and _is_word(after)))
    if left == "-":
        negative = right.isdigit() and not _is_word(before) and before != "-"
        return not (negative or (_is_word(before) and _is_word(right)))
    if right == "&":
        return not _is_initial(after)
    if left == "&":
        return not (_is_word(before) and _is_initial(right))
    if left == ".":
        return not _goes_on_after_full_stop(before, right, after)
    if left == ",":  # thousands
        return not (re.fullmatch(r"\d{1,3}", before) and re.fullmatch(r"\d{3}", right))
    if left == ":":  # times and ratios
        return not (before[-1:].isdigit() and right[:1].isdigit())
    return True


def _goes_on_after_full_stop(before: str, right: str, after: str) -> bool:
    """A decimal number, an abbreviation such as u.s., or a web address."""
    decimal = before[-1:].isdigit() and right[:1].isdigit()
    abbreviation = _is_letter(before) and _is_letter(right) and after == "."
    address = before == "www" or (_is_word(before) and right in _DOMAINS)
    return decimal or abbreviation or address


def _place_quotes(words: Sequence[str], spaces: list[bool], marks: set[str]) -> None:
    """Decide in place about the spaces beside apostrophes and quotation marks."""
    places = [i for i, word in enumerate(words) if word in marks]
    if marks is _APOSTROPHES:
        inside = [i for i in places if _is_apostrophe(_at(words, i - 1), _at(words, i + 1))]
        for i in inside:
            spaces[i] = spaces[i + 1] = False
        places = [i for i in places if i not in inside]
    is_open = False
    for number, i in enumerate(places):
        left, remaining = _at(words, i - 1), len(places) - number
        # One mark too many: the plural "dogs' bowls", or feet and inches.
        single = remaining == 1 or (remaining % 2 and (left[-1:] == "s" or left.isdigit()))
        if is_open or (single and i > 0):
            spaces[i] = False
            is_open = False
        elif i + 1 < len(words):
            spaces[i + 1] = False
            is_open = True


def _is_apostrophe(left: str, right: str) -> bool:
    """Whether a mark between two words belongs inside one: don't, o'clock, l'eau, 5'10."""
    if not (_is_word(left) and _is_word(right)):
        return False
    feet = left.isdigit() and right.isdigit()
    return right in _ENDINGS or left in _ELISIONS or feet


def _at(words: Sequence[str], i: int) -> str:
    return words[i] if 0 <= i < len(words) else ""


def _is_word(word: str) -> bool:
    return word[:1].isalnum()


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word.isalpha()


def _is_initial(word: str) -> bool:
    """The last letter of names such as at&t; not the article in "you & a friend"."""
    return _is_letter(word) and word not in ("a", "i")
