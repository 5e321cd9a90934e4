"""Phrases about items of a scene in simple English: noun phrases, region phrases, absent phrases.

Every phrase refers to exactly one item, or to the whole group it counts.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from x2vlm.stickers.concepts import (
    COLOURS,
    CONTAINERS,
    FAMILIES,
    FAMILY,
    NAMES,
    NUMBERS,
    POSITIONS,
    SHAPES,
    SIZES,
    SURFACE,
    article,
    plural,
)
from x2vlm.stickers.geometry import RELATIONS, Box, Item, Scene, holds, positions, union
from x2vlm.stickers.splits import held_out_colour, held_out_relation

INTROS = ("", "a picture of ", "there is ", "there are ")
# Superlative -> axis and sign that rank items of a kind, and how far the first must lead.
SUPERLATIVES = {"leftmost": (0, 1), "rightmost": (0, -1), "highest": (1, 1), "lowest": (1, -1)}
LEAD = 0.06


class Voice:
    """One way of naming things: within a text every kind keeps the same word. Without `rng`
    synonyms stay out."""

    def __init__(self, rng: random.Random | None = None):
        self._rng = rng
        self._words: dict[str, str] = {}

    def name(self, noun: str) -> str:
        """The word for a kind or family."""
        if noun not in self._words:
            self._words[noun] = (
                self._rng.choice(SURFACE[noun]) if self._rng and self._rng.random() < 0.4 else noun
            )
        return self._words[noun]


@dataclass(frozen=True)
class Description:
    """What a noun phrase says: a kind or family, and maybe colour, size and number."""

    noun: str
    colour: str = ""
    size: str = ""
    count: int = 1

    def fits(self, item: Item) -> bool:
        return (
            self.noun in (item.kind, FAMILY[item.kind])
            and self.colour in ("", item.colour)
            and self.size in ("", item.size)
        )

    def select(self, items: Iterable[Item]) -> list[Item]:
        return [item for item in items if self.fits(item)]

    def say(self, voice: Voice, determiner: str = "a", adjective: str = "") -> str:
        """In words. `determiner` is "a", "the" or "" (a bare label); the number is said when it is
        not one."""
        noun = voice.name(self.noun)
        noun = noun if self.count == 1 else plural(noun)
        words = " ".join(word for word in (adjective, self.size, self.colour, noun) if word)
        if self.count > 1:
            return f"{'the ' if determiner == 'the' else ''}{NUMBERS[self.count]} {words}"
        return article(words) if determiner == "a" else f"{determiner} {words}".strip()


def descriptions(item: Item) -> list[Description]:
    """All descriptions that fit an item, from "animal" to "small red star"."""
    nouns = [item.kind] + [FAMILY[item.kind]] * (FAMILY[item.kind] in FAMILIES)
    return [
        Description(noun, colour, size)
        for noun in nouns
        for colour in dict.fromkeys(("", item.colour))
        for size in dict.fromkeys(("", item.size))
    ]


def unique_descriptions(item: Item, items: tuple[Item, ...]) -> list[Description]:
    """The descriptions that fit this item and no other."""
    return [d for d in descriptions(item) if len(d.select(items)) == 1]


def name_uniquely(item: Item, items: tuple[Item, ...], rng: random.Random) -> Description | None:
    """One description by kind that fits this item alone, mostly the shortest; None when there is
    none."""
    fitting = [d for d in unique_descriptions(item, items) if d.noun == item.kind]
    if not fitting:
        return None
    return fitting[0] if rng.random() < 0.5 else rng.choice(fitting)


def groups(items: tuple[Item, ...], detail: int) -> list[tuple[Description, list[Item]]]:
    """Items that read alike put together, from left to right; every description counts all that fit
    it.

    `detail` 0 goes by kind, 1 by kind and colour, 2 by kind, colour and size.
    """
    found: dict[Description, list[Item]] = {}
    for item in sorted(items, key=lambda item: item.box[0]):
        key = Description(
            item.kind, item.colour if detail > 0 else "", item.size if detail > 1 else ""
        )
        found.setdefault(key, []).append(item)
    # A description without size may also fit an item that stands in a group of its own.
    return [
        (Description(d.noun, d.colour, d.size, len(members)), members)
        for d, members in found.items()
        if len(d.select(items)) == len(members)
    ]


# -------------------------------------------------------------------------------- region phrases


def _relation_phrases(item: Item, items: tuple[Item, ...], rng: random.Random) -> list[str]:
    """ "the dog left of the red car": the referent is the dog, and only one dog is even nearly
    there."""
    phrases, voice = [], Voice(rng)
    for other in items:
        anchor = name_uniquely(other, items, rng)
        if other is item or anchor is None:
            continue
        for relation in RELATIONS:
            if not holds(item, relation, other, strict=True):
                continue
            head = rng.choice(descriptions(item))
            if [x for x in head.select(items) if holds(x, relation, other, strict=False)] == [item]:
                determiner = rng.choice(("the", "the", "a", ""))
                phrases.append(
                    f"{head.say(voice, determiner)} {relation} {anchor.say(voice, 'the')}"
                )
    return phrases


def _position_phrases(item: Item, items: tuple[Item, ...], rng: random.Random) -> list[str]:
    """ "the leftmost dog" among the dogs, "the dog at the top left" of the image."""
    phrases, voice = [], Voice(rng)
    head = rng.choice([d for d in descriptions(item) if d.noun == item.kind])
    alike = head.select(items)
    for word, (axis, sign) in SUPERLATIVES.items():
        rivals = [sign * other.box[axis] for other in alike if other is not item]
        if rivals and sign * item.box[axis] + LEAD <= min(rivals):
            phrases.append(head.say(voice, "the", word))
    for cell in positions(item, strict=True):
        if [x for x in alike if cell in positions(x, strict=False)] == [item]:
            phrases.append(f"{head.say(voice, rng.choice(('the', '')))} {POSITIONS[cell]}")
    return phrases


def object_labels(scene: Scene, rng: random.Random) -> list[tuple[str, str, Box]]:
    """Every item, whatever else is in the image: its full description, "a small red star", and its
    name, "a red star"."""
    return [
        (
            Description(i.kind, i.colour, i.size).say(Voice(rng)),
            _object_name(i.kind, i.colour),
            i.box,
        )
        for i in scene.items
    ]


def _object_name(kind: str, colour: str = "") -> str:
    return Description(kind, colour).say(Voice())


def region_phrases(scene: Scene, rng: random.Random) -> list[tuple[str, Box]]:
    """Phrases of several granularities with the box of what they refer to."""
    items = scene.items
    regions = []
    for item in items:
        labels = unique_descriptions(item, items)
        texts = [
            d.say(Voice(rng), rng.choice(("a", "the", "")))
            for d in rng.sample(labels, min(2, len(labels)))
        ]
        for phrases in (_relation_phrases(item, items, rng), _position_phrases(item, items, rng)):
            if phrases:
                texts.append(rng.choice(phrases))
        regions += [(text, item.box) for text in dict.fromkeys(texts)]
    families = {d for item in items for d in descriptions(item)}
    for description in sorted(families, key=repr):
        members = description.select(items)
        if len(members) > 1 and rng.random() < 0.5:
            many = Description(description.noun, description.colour, description.size, len(members))
            regions.append((many.say(Voice(rng), rng.choice(("the", ""))), union(members)))
    return regions


def held_out_regions(
    scene: Scene, combination: tuple[int, ...], rng: random.Random
) -> list[tuple[str, Box]]:
    """Phrases that name a held-out combination, (i,) or (i, j) as `splits.held_out_items` gives it,
    in either wording."""
    items = scene.items
    if len(combination) == 1:
        item = items[combination[0]]
        named = [d for d in unique_descriptions(item, items) if d.noun == item.kind and d.colour]
        return [(d.say(Voice(rng), rng.choice(("a", "the", ""))), item.box) for d in named]
    regions = []
    for i, j in (combination, combination[::-1]):
        anchor = name_uniquely(items[j], items, rng)
        for relation in RELATIONS:
            near = [
                x
                for x in items
                if x.kind == items[i].kind and holds(x, relation, items[j], strict=False)
            ]
            spoken = held_out_relation(items[i].kind, relation, items[j].kind)
            if (
                anchor
                and spoken
                and near == [items[i]]
                and holds(items[i], relation, items[j], strict=True)
            ):
                voice = Voice(rng)
                head = Description(items[i].kind).say(voice, "the")
                regions.append((f"{head} {relation} {anchor.say(voice, 'the')}", items[i].box))
    return regions


# -------------------------------------------------------------------------------- absent phrases


def allowed(d: Description) -> bool:
    """False for a held-out coloured shape, which only `unseen` may speak of."""
    return not held_out_colour(d.colour, d.noun)


def absent_description(items: tuple[Item, ...], rng: random.Random, hard: bool) -> Description:
    """A description that fits nothing here; a hard one keeps the noun of an item and gets colour or
    size wrong."""
    for _ in range(12 if hard else 0):
        item = rng.choice(items)
        noun = rng.choice((item.kind, item.kind, FAMILY[item.kind]))
        colour = rng.choice(tuple(COLOURS)) if item.colour else ""
        size = rng.choice(("", *SIZES)) if item.size else ""
        wrong = Description(noun, colour, size)
        if noun in SURFACE and (colour or size) and allowed(wrong) and not wrong.select(items):
            return wrong
    while True:
        noun = rng.choice((*NAMES, *SHAPES, *FAMILIES))
        colour = rng.choice(("", *COLOURS)) if FAMILY.get(noun, noun) == "shape" else ""
        wrong = Description(noun, colour, rng.choice(("", "", *SIZES)))
        if allowed(wrong) and not Description(noun).select(items):
            return wrong


def absent_relation(items: tuple[Item, ...], rng: random.Random) -> str:
    """ "the dog left of the car" where both are present and no dog is even nearly left of a car; ""
    if none is found."""
    for _ in range(12):
        a, b = rng.choice(items), rng.choice(items)
        if a is b or a.kind == b.kind:
            continue
        head, anchor = rng.choice(descriptions(a)), name_uniquely(b, items, rng)
        relation = rng.choice(RELATIONS if b.kind in CONTAINERS else RELATIONS[:-1])
        if anchor is None or held_out_relation(a.kind, relation, b.kind):
            continue
        if not any(holds(x, relation, b, strict=False) for x in head.select(items)):
            voice = Voice(rng)
            return f"{head.say(voice, 'the')} {relation} {anchor.say(voice, 'the')}"
    return ""


def absent_phrases(scene: Scene, rng: random.Random) -> list[str]:
    """Two phrases with nothing right, then hard ones: wrong attribute, wrong relation, wrong
    number."""
    items = scene.items
    easy = [absent_description(items, rng, hard=False) for _ in range(2)]
    phrases = [
        d.say(Voice(rng), rng.choice(("a", "the", "")))
        for d in (*easy, absent_description(items, rng, hard=True))
    ]
    phrases.append(absent_relation(items, rng))
    description, members = rng.choice(groups(items, 0))
    if len(members) < 5:
        more = Description(description.noun, count=rng.randint(len(members) + 1, 5))
        phrases.append(more.say(Voice(rng), ""))
    return [phrase for phrase in phrases if phrase]


OBJECT_NAMES = tuple(
    [_object_name(kind) for kind in NAMES]
    + [
        _object_name(shape, colour)
        for shape in SHAPES
        for colour in COLOURS
        if not held_out_colour(colour, shape)
    ]
)
"""The names that `object_labels` gives to the items of all splits but `unseen`."""
