"""Exact match and the soft accuracy of VQA v2, with the answer normalisation of its official
evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_WITH_APOSTROPHE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he's how'd "
    "how'll how's i'm i've isn't it'd it'll might've mightn't must've mustn't needn't not've "
    "o'clock oughtn't shan't she's should've shouldn't somebody'd somebody's someone's something's "
    "that's there'd there's they'd they'll they're they've wasn't we've weren't what'll what's "
    "what're what've when's where's where'd who'll who's who've why's won't would've wouldn't "
    "y'all you'd you'll you're you've"
)
_CONTRACTIONS = {word.replace("'", ""): word for word in _WITH_APOSTROPHE.split()}


def normalize_answer(text: str) -> str:
    """Lower case, punctuation and articles away, number words as digits, apostrophes of
    contractions restored."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    for mark in _PUNCTUATION:
        spaced = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text) is not None
        text = text.replace(mark, "" if spaced else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """min(people who gave this answer / 3, 1), averaged over leaving each of the annotators out
    (VQA v2)."""
    if not answers:
        return 0.0
    if len(set(answers)) > 1:
        prediction, answers = (
            normalize_answer(prediction),
            [normalize_answer(answer) for answer in answers],
        )
    else:
        prediction, answers = prediction.strip(), [answer.strip() for answer in answers]
    same = sum(answer == prediction for answer in answers)
    return sum(min(1.0, (same - (answer == prediction)) / 3) for answer in answers) / len(answers)
