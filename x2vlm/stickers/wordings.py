"""People's words for the questions of `questions`, `free` and `videos`: other sentences, other
spellings, polite forms, missing question marks and typos.

Every kind of question has wordings that training uses and wordings that are kept back from it, so
that a measure on the latter tells how sentences nobody thought of fare. Slots: {a} "a red star",
{b} "red star", {s} "red stars"; {x} and {y} things with their article; {c} a comparison; the rest
are named where they stand.
"""

import random
import re
from dataclasses import dataclass

from x2vlm.stickers.concepts import NAMES, PLURAL, SHAPES, SINGULAR, plural

_RELATION = "left of|right of|above|below|next to|inside"
_COMPARISON = "bigger|smaller|higher|lower|further left|further right"
_PLACE = r"(?:at|on|in) the (?:top|bottom|left|right|centre)(?: left| right)?"


@dataclass(frozen=True)
class Wording:
    """`pattern` reads the plain question; its groups fill the slots of the sentences."""

    pattern: str
    trained: tuple[str, ...]
    kept_back: tuple[str, ...]


def _wording(pattern: str, trained: str, kept_back: str) -> Wording:
    one, two = (tuple(line.strip() for line in text.split("|")) for text in (trained, kept_back))
    return Wording(pattern, one, two)


_COLOUR = _wording(
    r"what colour is (?P<x>.+)\?",
    "what colour is {x}? | which colour is {x}? | what is the colour of {x}? | {x} is what colour? "
    "| what colour does {x} have? | tell me the colour of {x} | can you name the colour of {x}?",
    "what's the colour of {x}? | do you know what colour {x} is? | what colour do you see on {x}?",
)
_WHAT = (
    "what is {q}? | what do you see {q}? | which thing is {q}? | what stands {q}? | "
    "name the thing {q} | there is what {q}? | what is it that is {q}?"
)
_WHAT_KEPT = "what's {q}? | which object is {q}? | what can you see {q}?"
WORDINGS = {
    "exists": _wording(
        r"is there (?P<a>.+)\?",
        "is there {a}? | is there {a} in the picture? | is there any {b}? | are there any {s}? | "
        "can you see {a}? | do you see any {s}? | does the image show {a}? | is {a} in the scene?"
        " | are there {s} here? | i see {a}, right? | does this have {a} in it? | any {s} here? |"
        " is {a} shown? | {a}? | isn't there {a}? | do we have {a} in this image?",
        "is there {a} in this picture? | can you see any {s}? | does the picture show {a}? | do "
        "you see {a} anywhere? | are any {s} shown here? | could you check if there is {a}? | is "
        "there at least one {b}?",
    ),
    "none": _wording(
        r"is there no (?P<b>.+)\?",
        "is there no {b}? | are there no {s}? | is there not a single {b}? | do you see no {s}? |"
        " there is no {b} here, right? | does the image show no {b}?",
        "is there no {b} in this picture? | can you see no {s} here? | is it true that there is "
        "no {b}?",
    ),
    "something": _wording(
        r"is there something (?P<q>.+)\?",
        "is there something {q}? | is there anything {q}? | do you see something {q}? | can you "
        "see anything {q}? | is there a thing {q}? | anything {q}?",
        "do you see anything {q}? | is something {q} in the picture? | can you see something {q}?",
    ),
    "exactly": _wording(
        r"(?P<v>is|are) there exactly (?P<n>.+)\?",
        "{v} there exactly {n}? | do you see exactly {n}? | is it true that there {v} {n}? | does"
        " the picture show exactly {n}? | {n}, is that right? | {v} there just {n}? | can you "
        "count exactly {n}?",
        "{v} there exactly {n} in the image? | does this have exactly {n}? | would you say there "
        "{v} just {n}?",
    ),
    "relation_yes_no": _wording(
        rf"is (?P<x>.+) (?P<r>{_RELATION}) (?P<y>.+)\?",
        "is {x} {r} {y}? | would you say {x} is {r} {y}? | do you see {x} {r} {y}? | {x} is {r} "
        "{y}, right? | does {x} stand {r} {y}?",
        "is it true that {x} is {r} {y}? | do you think {x} is {r} {y}? | can you see {x} {r} {y}?",
    ),
    "background_yes_no": _wording(
        r"is the scene (?P<p>.+)\?",
        "is the scene {p}? | is this {p}? | is the picture {p}? | is it {p}? | does it look like "
        "it is {p}? | are we {p}?",
        "is the image {p}? | is everything {p}? | would you say this is {p}?",
    ),
    "more": _wording(
        r"are there more (?P<x>.+) than (?P<y>.+)\?",
        "are there more {x} than {y}? | do you see more {x} than {y}? | more {x} than {y}? | is "
        "the number of {x} larger than the number of {y}? | does the picture show more {x} than "
        "{y}?",
        "does the image have more {x} than {y}? | can you see more {x} than {y} here? | is it "
        "true that there are more {x} than {y}?",
    ),
    "most": _wording(
        r"are there more (?P<x>.+) or (?P<y>.+)\?",
        "are there more {x} or {y}? | which are there more of, {x} or {y}? | more {x} or more "
        "{y}? | do you see more {x} or more {y}?",
        "what do you see more of, {x} or {y}? | are there more {x} or more {y} in the picture?",
    ),
    "compare": _wording(
        r"which is (?P<c>.+), (?P<x>.+) or (?P<y>.+)\?",
        "which is {c}, {x} or {y}? | which one is {c}, {x} or {y}? | is {x} or {y} {c}? | what is"
        " {c}, {x} or {y}? | tell me which is {c}: {x} or {y}",
        "which of the two is {c}, {x} or {y}? | between {x} and {y}, which is {c}? | {x} or {y}, "
        "which one is {c}?",
    ),
    "compare_yes_no": _wording(
        rf"is (?P<x>.+) (?P<c>{_COMPARISON}) than (?P<y>.+)\?",
        "is {x} {c} than {y}? | would you say {x} is {c} than {y}? | {x} is {c} than {y}, right? "
        "| does {x} look {c} than {y}?",
        "do you think {x} is {c} than {y}? | is it true that {x} is {c} than {y}?",
    ),
    "extreme": _wording(
        r"what is the (?P<e>\S+) thing\?",
        "what is the {e} thing? | which thing is the {e}? | what is the {e} one? | name the {e} "
        "sticker | what is the {e} object in the image?",
        "what's the {e} thing in the picture? | which sticker is the {e}? | can you tell me what "
        "the {e} thing is?",
    ),
    "position_yes_no": _wording(
        rf"is (?P<x>.+) (?P<p>{_PLACE})\?",
        "is {x} {p}? | can you see {x} {p}? | do you see {x} {p}? | is {x} to be seen {p}? | {x} "
        "is {p}, right?",
        "is {x} {p} of the picture? | would you say {x} is {p}? | is it true that {x} is {p}?",
    ),
    "colour": _COLOUR,
    "shape": _wording(
        r"what is (?P<x>.+)\?",
        "what is {x}? | what kind of shape is {x}? | what shape is {x}? | which shape is {x}? | "
        "name {x}",
        "what's {x}? | tell me what {x} is | what is {x} in the picture?",
    ),
    "what": _wording(
        r"what is (?P<x>.+)\?",
        "what is {x}? | what do you call {x}? | which thing is {x}? | name {x} | what is {x} here?",
        "what's {x}? | tell me what {x} is | what is {x} in the picture?",
    ),
    "kind": _wording(
        r"(?:which|what kind of) (?P<f>\S+) is there\?",
        "which {f} is there? | what kind of {f} is there? | what {f} do you see? | which {f} is "
        "in the picture? | what kind of {f} is this? | what sort of {f} is shown? | name the {f}",
        "what sort of {f} do you see? | can you tell me which {f} this is? | what {f} is in the "
        "image?",
    ),
    "count": _wording(
        r"how many (?P<s>.+) are there\?",
        "how many {s} are there? | how many {s} do you see? | how many {s} can you count? | count"
        " the {s} | what is the number of {s}? | number of {s}? | how many {s} are in the image? "
        "| how many {s} are shown here?",
        "how many {s} can you see? | how many {s} are in the picture? | tell me how many {s} "
        "there are | how many {s} does the image show?",
    ),
    "total": _wording(
        r"how many stickers are there in total\?",
        "how many stickers are there in total? | how many things are there? | how many objects do"
        " you see? | how many items are there in all? | count everything | how many things can "
        "you count? | what is the total number of stickers? | how many stickers are in the image?",
        "how many things are in the picture? | how many stickers do you see? | how many objects "
        "are there in total? | count all the things",
    ),
    "kinds": _wording(
        r"how many different kinds of stickers are there\?",
        "how many different kinds of stickers are there? | how many kinds of things are there? | "
        "how many different things are there? | how many sorts of stickers do you see? | how many"
        " different objects are shown?",
        "how many different sorts of things are there? | how many kinds of stickers are in the "
        "picture? | how many different things do you see?",
    ),
    "size": _wording(
        r"(?:what size is (?P<x>.+)|is (?P<z>.+) small or large)\?",
        "what size is {x}? | is {x} small or large? | how big is {x}? | how large is {x}? | is "
        "{x} big or small? | would you call {x} large or small? | tell me the size of {x}",
        "what is the size of {x}? | is {x} large or is it small? | is {x} little or big?",
    ),
    "where": _wording(
        r"where is (?P<x>.+)\?",
        "where is {x}? | where can i see {x}? | where do you see {x}? | in which part of the "
        "picture is {x}? | what is the position of {x}? | where can {x} be seen?",
        "where's {x}? | where in the image is {x}? | can you tell me where {x} is?",
    ),
    "what_relation": _wording(rf"what is (?P<q>(?:{_RELATION}) .+)\?", _WHAT, _WHAT_KEPT),
    "what_position": _wording(rf"what is (?P<q>{_PLACE})\?", _WHAT, _WHAT_KEPT),
    "background": _wording(
        r"what (?:is the background|does the background look like)\?",
        "what is the background? | what does the background look like? | where is the scene? | "
        "what is behind the stickers? | what kind of background is it? | where are we?",
        "what's in the background? | which background does the picture have? | where is this?",
    ),
    "appeared": _wording(
        r"what appears\?",
        "what appears? | what comes in? | which thing appears later? | what was not there at "
        "first? | what is new at the end? | what enters the scene?",
        "what appeared? | which sticker comes in later? | what is there only at the end?",
    ),
    "left": _wording(
        r"what disappears\?",
        "what disappears? | what leaves? | which thing goes away? | what is gone at the end? | "
        "what leaves the scene? | what is there only at first?",
        "what left? | which sticker goes away? | what is not there at the end?",
    ),
    "before": _wording(
        r"is (?P<x>.+) there before (?P<y>.+)\?",
        "is {x} there before {y}? | does {x} come before {y}? | do you see {x} before {y}? | was "
        "{x} there first and then {y}? | is {y} there after {x}?",
        "does {x} appear before {y}? | do you see {y} after {x}? | is {x} shown before {y}?",
    ),
    "first": _wording(
        r"what comes first, (?P<x>.+) or (?P<y>.+)\?",
        "what comes first, {x} or {y}? | which comes first, {x} or {y}? | what is there first, "
        "{x} or {y}? | which was there first, {x} or {y}? | is {x} or {y} there first?",
        "what came first, {x} or {y}? | which one is first, {x} or {y}? | {x} or {y}, which comes"
        " first?",
    ),
}
"""By the `kind` of a question."""

# Words that people exchange freely; the last of each line is kept back from training.
SYNONYMS = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "higher up than", "somewhere above"),
    "below": ("below", "under", "beneath", "somewhere below"),
    "next to": ("next to", "beside", "right beside"),
    "inside": ("inside", "within", "in", "inside of"),
    "at the top": ("at the top", "at the very top", "near the top"),
    "at the bottom": ("at the bottom", "at the very bottom", "near the bottom"),
    "on the left": ("on the left", "on the left side", "at the left", "to the left"),
    "on the right": ("on the right", "on the right side", "at the right", "to the right"),
    "in the centre": ("in the centre", "in the middle", "in the center", "right in the middle"),
    "at the top left": ("at the top left", "in the top left corner", "in the upper left"),
    "at the top right": ("at the top right", "in the top right corner", "in the upper right"),
    "at the bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left"),
    "at the bottom right": (
        "at the bottom right",
        "in the bottom right corner",
        "in the lower right",
    ),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "bigger": ("bigger", "larger"),
    "largest": ("largest", "biggest"),
    "colour": ("colour", "color"),
    "grey": ("grey", "gray"),
}
_SYNONYM = re.compile(rf"\b({'|'.join(sorted(SYNONYMS, key=len, reverse=True))})\b")
BEFORE = ("please tell me, ", "hi, ", "hello, ", "can you tell me: ", "tell me, ", "ok, ")
BEFORE_KEPT_BACK = ("could you please tell me, ", "hey, ", "so, ")
AFTER = (" please", " thanks", ", please")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_KNOWN = {word for form in (*SINGULAR, *PLURAL, *NAMES, *SHAPES) for word in form.split()}


def many(noun_phrase: str) -> str:
    """The plural of a noun phrase: "small fish", "red stars"."""
    words = noun_phrase.split()
    for start in range(len(words)):
        noun = " ".join(words[start:])
        if noun in SINGULAR or start == len(words) - 1:
            return " ".join([*words[:start], plural(noun)])
    return noun_phrase


def exchange(text: str, rng: random.Random, kept_back: bool = False) -> str:
    """Some words exchanged for synonyms, for such as are kept back where `kept_back`."""

    def choose(match: re.Match) -> str:
        words = SYNONYMS[match[0]]
        if len(words) > 2:
            words = words[-1:] if kept_back else words[:-1]
        return rng.choice(words) if rng.random() < 0.5 else match[0]

    return _SYNONYM.sub(choose, text)


def reword(question: str, kind: str, rng: random.Random, kept_back: bool = False) -> str:
    """Another wording of a plain question of a kind; `kept_back`: with a sentence and with synonyms
    that training never sees."""
    wording = WORDINGS[kind]
    slots = {k: v for k, v in re.fullmatch(wording.pattern, question).groupdict().items() if v}
    if "z" in slots:
        slots["x"] = slots["z"]
    if "a" in slots:
        slots["b"] = slots["a"].split(" ", 1)[1]
    if "b" in slots:
        slots["s"] = many(slots["b"])
    template = rng.choice(wording.kept_back if kept_back else wording.trained)
    return exchange(template.format(**slots), rng, kept_back)


def _typo(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + rng.choice(LETTERS) + word[at + 1 :],
        )
    )


def mistype(text: str, rng: random.Random) -> str:
    """One letter of one longer word left out, doubled, exchanged with the next, or wrong."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if places:
        at = rng.choice(places)
        changed = _typo(words[at], rng)
        words[at] = words[at] if changed in _KNOWN else changed
    return " ".join(words)


def as_people_type(text: str, rng: random.Random, kept_back: bool = False) -> str:
    """With politeness, capitals, a missing question mark or a typo, each of them seldom."""
    if rng.random() < 0.1:
        text = mistype(text, rng)
    if rng.random() < 0.12:
        text = rng.choice(BEFORE_KEPT_BACK if kept_back else BEFORE) + text
    if rng.random() < 0.3:
        text = text.removesuffix("?")
    if rng.random() < 0.06:
        text = text.removesuffix("?") + rng.choice(AFTER)
    if rng.random() < 0.3:
        text = text[:1].upper() + text[1:] if rng.random() < 0.8 else text.upper()
    return text
