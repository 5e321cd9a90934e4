"""Exact match and the soft accuracy of VQA v2, both on answers that are normalised as in its
official evaluation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_WITH_APOSTROPHES = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am "
    "mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd "
    "there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've "
    "who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
    "y'all'd've you'd you'd've you'll you're you've"
)
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _WITH_APOSTROPHES.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}
"""The official table: words with an apostrophe forgotten, and three entries of another kind. Its
`Im`, `Ive` and `Id've` are lower case here, as the words that are looked up are."""


def normalize_answer(text: str) -> str:
    """Lower case, punctuation and articles away, number words as digits, forgotten apostrophes of
    contractions restored."""
    given = text.replace("\n", " ").replace("\t", " ").strip()
    number = _COMMA_IN_NUMBER.search(given) is not None
    text = given
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if beside_space or number else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """min(people who gave this answer / 3, 1), averaged over leaving each of the annotators out
    (VQA v2)."""
    if not answers:
        return 0.0
    prediction = normalize_answer(prediction)
    same = [normalize_answer(answer) == prediction for answer in answers]
    return sum(min(1.0, (sum(same) - itself) / 3) for itself in same) / len(same)


def best_answer(answers: Mapping[str, float]) -> str:
    """The normalised answer of the greatest weight; answers that differ in writing only share
    theirs."""
    weights: dict[str, float] = defaultdict(float)
    for answer, weight in answers.items():
        weights[normalize_answer(answer)] += weight
    return max(weights, key=weights.get)


def unlisted(answers: Collection[Sequence[str]], listed: Collection[str]) -> str | None:
    """A sentence about the questions that have no right answer in the list; None if there are
    none.

    Args:
        answers: what counts as right of each question.
        listed: the answers that a model may give.
    """
    known = set(map(normalize_answer, listed))
    lost = [given for given in answers if known.isdisjoint(map(normalize_answer, given))]
    if not lost:
        return None
    examples = ", ".join(repr(answer) for answer in dict.fromkeys(given[0] for given in lost[:3]))
    return (
        f"{len(lost)} of {len(answers)} questions have no answer that is in the answer list and "
        f"count as wrong, for example {examples}."
    )
