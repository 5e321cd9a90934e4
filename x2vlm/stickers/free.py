"""Questions as people ask them: those of `questions` in other words, looser ones about colours of
stickers, more general names, comparisons, "something" and "no", and such that make no sense here,
whose answer is `UNSURE`.

As in `questions`, a maker takes (scene, rng) and returns (question, answer) or None.
"""

import random

from x2vlm.results import UNSURE
from x2vlm.stickers.concepts import (
    ALL_COLOURS,
    FAMILIES,
    HYPERNYMS,
    NUMBERS,
    POSITIONS,
)
from x2vlm.stickers.geometry import RELATIONS, Item, Scene, holds, positions
from x2vlm.stickers.language import Voice
from x2vlm.stickers.loose import (
    GENERAL,
    SOMETHING,
    Loose,
    call,
    colours_of,
    loose_absent,
    loose_descriptions,
    nouns_of,
)
from x2vlm.stickers.nonsense import nonsense
from x2vlm.stickers.questions import CONTENT_MAKERS, MAKERS, Maker, Question
from x2vlm.stickers.wordings import as_people_type, reword

STEP = 0.12
"""How much higher or further left, in image sides, a thing must be for a comparison."""
COMPARISONS = {
    "bigger": lambda a, b: (a.size, b.size) == ("large", "small"),
    "smaller": lambda a, b: (a.size, b.size) == ("small", "large"),
    "higher": lambda a, b: a.box[1] + STEP <= b.box[1],
    "lower": lambda a, b: a.box[1] >= b.box[1] + STEP,
    "further left": lambda a, b: a.box[0] + STEP <= b.box[0],
    "further right": lambda a, b: a.box[0] >= b.box[0] + STEP,
}
EXTREMES = {
    "largest": "bigger",
    "smallest": "smaller",
    "highest": "higher",
    "lowest": "lower",
    "leftmost": "further left",
    "rightmost": "further right",
}
UNSURE_SHARE = 0.12


def _there_or_not(scene: Scene, rng: random.Random) -> tuple[Loose, bool]:
    there = rng.random() < 0.5
    while True:
        item = rng.choice(scene.items)
        d = rng.choice(loose_descriptions(item)) if there else loose_absent(scene.items, rng)
        if d.noun not in (SOMETHING, "thing"):
            return d, there


def ask_loosely(scene: Scene, rng: random.Random) -> Question | None:
    """Is there a pink bird?"""
    d, there = _there_or_not(scene, rng)
    return f"is there {d.say(Voice(rng), 'a')}?", "yes" if there else "no"


def ask_none(scene: Scene, rng: random.Random) -> Question | None:
    """Is there no bird?"""
    d, there = _there_or_not(scene, rng)
    return f"is there no {d.say(Voice(rng), '')}?", "no" if there else "yes"


def ask_something(scene: Scene, rng: random.Random) -> Question | None:
    """Is there something red, or on the left, or left of the dog?"""
    items, wanted = scene.items, rng.random() < 0.5
    for _ in range(40):  # what is there is hit less often than what is not
        choice = rng.random()
        if choice < 0.4:
            colour = rng.choice(ALL_COLOURS)
            words, d = colour, Loose(SOMETHING, colour)
            sure, maybe = d.select(items), d.select(items, strict=False)
        elif choice < 0.7:
            cell = rng.choice(tuple(POSITIONS))
            words = POSITIONS[cell]
            sure, maybe = ([x for x in items if cell in positions(x, s)] for s in (True, False))
        else:
            anchor, relation = rng.choice(items), rng.choice(RELATIONS[:5])
            name = call(anchor, items, rng)
            if name is None:
                continue
            words = f"{relation} {name.say(Voice(rng))}"
            sure, maybe = (
                [x for x in items if holds(x, relation, anchor, s)] for s in (True, False)
            )
        if sure if wanted else not maybe:
            return f"is there something {words}?", "yes" if wanted else "no"
    return None


def ask_loose_colour(scene: Scene, rng: random.Random) -> Question | None:
    """What colour is the flamingo?"""
    found = [
        (d, colours_of(item)[0])
        for item in scene.items
        if colours_of(item)[0]
        for d in loose_descriptions(item)
        if not d.colour and d.select(scene.items, strict=False) == [item]
    ]
    if not found:
        return None
    d, colour = rng.choice(found)
    return f"what colour is {d.say(Voice(rng))}?", colour


def ask_loose_kind(scene: Scene, rng: random.Random) -> Question | None:
    """Which bird is there?"""
    found = [
        (general, kinds)
        for general in (*HYPERNYMS, *FAMILIES)
        if len(kinds := {i.kind for i in scene.items if general in nouns_of(i.kind)}) == 1
    ]
    if not found:
        return None
    general, (kind,) = rng.choice(found)
    return f"which {general} is there?", kind


def ask_loose_what(scene: Scene, rng: random.Random) -> Question | None:
    """What is the red thing?"""
    found = [
        (d, item.kind)
        for item in scene.items
        for d in loose_descriptions(item)
        if d.noun in (*GENERAL, "thing") and d.select(scene.items, strict=False) == [item]
    ]
    if not found:
        return None
    d, kind = rng.choice(found)
    return f"what is {d.say(Voice(rng))}?", kind


def ask_loose_count(scene: Scene, rng: random.Random) -> Question | None:
    """How many birds are there?"""
    found = {d for i in scene.items for d in loose_descriptions(i) if d.noun != SOMETHING}
    counted = [d for d in sorted(found, key=repr) if d.certain(scene.items)]
    several = [d for d in counted if len(d.select(scene.items)) > 1]
    if rng.random() < 0.12:
        d = loose_absent(scene.items, rng)
    elif counted:
        d = rng.choice(several if several and rng.random() < 0.6 else counted)
    else:
        return None
    if d.noun == SOMETHING:
        return None
    return f"how many {d.many(Voice(rng))} are there?", NUMBERS[len(d.select(scene.items))]


def _two(scene: Scene, rng: random.Random) -> tuple[Item, str, Item, str, str] | None:
    """Two items, their names, and what the first is more than the second."""
    for _ in range(8):
        if len(scene.items) < 2:
            return None
        a, b = rng.sample(scene.items, 2)
        more = [word for word, compare in COMPARISONS.items() if compare(a, b)]
        first, second = call(a, scene.items, rng), call(b, scene.items, rng)
        if more and first and second and a.kind != b.kind:
            voice = Voice(rng)
            # One that tells the size by itself would give the answer away.
            word = rng.choice(more)
            if word in ("bigger", "smaller"):
                first, second = (Loose(d.noun, d.colour) for d in (first, second))
                if [first.select(scene.items, False), second.select(scene.items, False)] != [
                    [a],
                    [b],
                ]:
                    continue
            return a, first.say(voice), b, second.say(voice), word
    return None


def ask_compare(scene: Scene, rng: random.Random) -> Question | None:
    """Which is bigger, the envelope or the cat?"""
    found = _two(scene, rng)
    if not found:
        return None
    a, first, _, second, word = found
    x, y = rng.sample((first, second), 2)
    return f"which is {word}, {x} or {y}?", a.kind


def ask_compare_yes_no(scene: Scene, rng: random.Random) -> Question | None:
    """Is the envelope bigger than the cat?"""
    found = _two(scene, rng)
    if not found:
        return None
    _, first, _, second, word = found
    if rng.random() < 0.5:
        return f"is {first} {word} than {second}?", "yes"
    return f"is {second} {word} than {first}?", "no"


def ask_extreme(scene: Scene, rng: random.Random) -> Question | None:
    """What is the largest thing?"""
    items = scene.items
    found = [
        (extreme, item.kind)
        for extreme, word in EXTREMES.items()
        for item in items
        if len(items) > 1
        and all(COMPARISONS[word](item, other) for other in items if other is not item)
    ]
    if not found:
        return None
    extreme, kind = rng.choice(found)
    return f"what is the {extreme} thing?", kind


def ask_most(scene: Scene, rng: random.Random) -> Question | None:
    """Are there more dogs or cats?"""
    count = {}
    for item in scene.items:
        count[item.kind] = count.get(item.kind, 0) + 1
    pairs = [(a, b) for a in count for b in count if count[a] > count[b]]
    if not pairs:
        return None
    more, fewer = rng.choice(pairs)
    x, y = (Loose(kind).many(Voice(rng)) for kind in rng.sample((more, fewer), 2))
    return f"are there more {x} or {y}?", more


def ask_unsure(scene: Scene, rng: random.Random, kept_back: bool = False) -> Question | None:
    """A question without an answer here: about what is not there, or nonsense."""
    if rng.random() < 0.3:
        d = loose_absent(scene.items, rng)
        if d.noun == SOMETHING:
            return None
        kind, plain = rng.choice(
            (
                ("where", f"where is {d.say(Voice(rng))}?"),
                ("size", f"what size is {Loose(d.noun, d.colour).say(Voice(rng))}?"),
                ("colour", f"what colour is {Loose(d.noun).say(Voice(rng))}?"),
            )
        )
        if kind != "where" and Loose(d.noun).select(scene.items, strict=False):
            return None
        return reword(plain, kind, rng, kept_back), UNSURE
    name = call(rng.choice(scene.items), scene.items, rng)
    return nonsense(name.say(Voice(rng)) if name else "the picture", rng, kept_back), UNSURE


LOOSE_CONTENT: dict[str, tuple[str, Maker]] = {
    "exists loosely": ("exists", ask_loosely),
    "none": ("none", ask_none),
    "colour of stickers": ("colour", ask_loose_colour),
    "kind loosely": ("kind", ask_loose_kind),
    "count loosely": ("count", ask_loose_count),
    "most": ("most", ask_most),
}
LOOSE = LOOSE_CONTENT | {
    "something": ("something", ask_something),
    "what loosely": ("what", ask_loose_what),
    "compare": ("compare", ask_compare),
    "compare yes or no": ("compare_yes_no", ask_compare_yes_no),
    "extreme": ("extreme", ask_extreme),
}
"""By kind, the kind of `WORDINGS` it is said in, and its maker."""


def free_questions(
    scene: Scene,
    rng: random.Random,
    kept_back: bool = False,
    count: int = 8,
    content: bool = False,
) -> list[dict]:
    """Up to `count` questions as {"question", "answer", "kind"}, as people type them.

    Args:
        kept_back: in words that training never sees.
        content: only such as need no places or sizes, for videos.
    """
    plain = {kind: (kind, maker) for kind, maker in (CONTENT_MAKERS if content else MAKERS).items()}
    makers = plain | (LOOSE_CONTENT if content else LOOSE)
    found = []
    for kind in rng.sample(sorted(makers), len(makers)):
        if len(found) == count:
            break
        if rng.random() < UNSURE_SHARE:
            asked = ask_unsure(scene, rng, kept_back)
            kind, said_as = UNSURE, ""
        else:
            said_as, maker = makers[kind]
            asked = maker(scene, rng)
        if asked:
            text = reword(asked[0], said_as, rng, kept_back) if said_as else asked[0]
            text = as_people_type(text, rng, kept_back)
            found.append({"question": text, "answer": asked[1], "kind": kind})
    return found
