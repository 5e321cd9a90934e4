"""Looser phrases than those of `language`: "the bird", "something red", "the pink flamingo",
"flowers", and captions that name only some things or merely list them.

Each is sure of what it refers to: nothing else in the scene may even be meant. Colours of stickers
are those of `STICKER_COLOURS`.
"""

import random
from dataclasses import dataclass
from functools import cache, lru_cache

from x2vlm.stickers.captions import join
from x2vlm.stickers.concepts import (
    ALL_COLOURS,
    FAMILIES,
    FAMILY,
    HYPERNYMS,
    NAMES,
    NUMBERS,
    POSITIONS,
    SHAPES,
    STICKER_COLOURS,
    article,
    plural,
)
from x2vlm.stickers.geometry import RELATIONS, Box, Item, Scene, holds, positions, union
from x2vlm.stickers.language import Voice
from x2vlm.stickers.splits import held_out_colour, held_out_relation
from x2vlm.stickers.wordings import exchange

GENERAL = ("bird", "flower", "fruit", *FAMILIES)
THINGS = ("thing", "object", "sticker")
SOMETHING = "something"


@cache
def nouns_of(kind: str) -> tuple[str, ...]:
    """What a thing of a kind may be called: its kind, then more general names."""
    family = FAMILY[kind]
    return (
        kind,
        *(general for general, kinds in HYPERNYMS.items() if kind in kinds),
        *((family,) if family in FAMILIES else ()),
    )


def colours_of(item: Item) -> tuple[str, ...]:
    """The colours that somebody might see on an item, first the one that everybody does, or ""."""
    return (item.colour,) if item.colour else STICKER_COLOURS[item.kind]


@dataclass(frozen=True)
class Loose:
    """A noun (a kind, a more general name, "thing" or "something"), maybe a colour and a size."""

    noun: str
    colour: str = ""
    size: str = ""

    def fits(self, item: Item, strict: bool) -> bool:
        """Strictly: everybody would say so. Leniently: somebody might."""
        colours = colours_of(item)
        return (
            self.noun in (SOMETHING, *THINGS, *nouns_of(item.kind))
            and (not self.colour or self.colour in (colours[:1] if strict else colours))
            and self.size in ("", item.size)
        )

    def select(self, items: tuple[Item, ...], strict: bool = True) -> list[Item]:
        return [item for item in items if self.fits(item, strict)]

    def certain(self, items: tuple[Item, ...]) -> bool:
        """Whether nobody could count differently."""
        return self.select(items) == self.select(items, strict=False)

    def bare(self, voice: Voice) -> str:
        if self.noun == SOMETHING:
            return " ".join(word for word in (SOMETHING, self.size, self.colour) if word)
        noun = self.noun if self.noun in (*THINGS, *GENERAL) else voice.name(self.noun)
        return " ".join(word for word in (self.size, self.colour, noun) if word)

    def say(self, voice: Voice, determiner: str = "the") -> str:
        """ "the pink bird", "a bird", "bird"; "something pink" has no determiner."""
        words = self.bare(voice)
        if self.noun == SOMETHING or not determiner:
            return words
        return article(words) if determiner == "a" else f"{determiner} {words}"

    def many(self, voice: Voice) -> str:
        """ "pink birds"."""
        noun = plural(self.noun if self.noun in (*THINGS, *GENERAL) else voice.name(self.noun))
        return " ".join(word for word in (self.size, self.colour, noun) if word)


@lru_cache(maxsize=64)
def loose_descriptions(item: Item) -> tuple[Loose, ...]:
    """Everything that certainly describes an item; a bare "thing" is left out."""
    colour = colours_of(item)[0]
    return tuple(
        Loose(noun, c, s)
        for noun in (*nouns_of(item.kind), "thing", SOMETHING)
        for c in dict.fromkeys(("", colour))
        for s in dict.fromkeys(("", item.size))
        if (noun not in (*THINGS, SOMETHING) or c) and not held_out_colour(c, noun)
    )


def call(item: Item, items: tuple[Item, ...], rng: random.Random) -> Loose | None:
    """One description that fits this item alone; None when there is none."""
    found = [d for d in loose_descriptions(item) if d.select(items, strict=False) == [item]]
    named = [d for d in found if d.noun != SOMETHING]
    return rng.choice(named) if named else None


def _where(item: Item, items: tuple[Item, ...], voice: Voice, rng: random.Random) -> str:
    """A phrase for an item with its place or a relation; "" when nothing is certain."""
    cells = positions(item, strict=True)
    head = rng.choice([*loose_descriptions(item), Loose("thing"), Loose(SOMETHING)])
    alike = head.select(items, strict=False)
    placed = cells and [x for x in alike if cells[0] in positions(x, strict=False)] == [item]
    if placed and rng.random() < 0.6:
        return f"{head.say(voice, rng.choice(('the', 'a', '')))} {POSITIONS[cells[0]]}"
    for other in rng.sample(items, len(items)):
        anchor = None if other is item else call(other, items, rng)
        for relation in rng.sample(RELATIONS, len(RELATIONS)) if anchor else ():
            if (
                holds(item, relation, other, strict=True)
                and not held_out_relation(item.kind, relation, other.kind)
                and [x for x in alike if holds(x, relation, other, strict=False)] == [item]
            ):
                return f"{head.say(voice)} {relation} {anchor.say(voice)}"
    return ""


def loose_regions(
    scene: Scene, rng: random.Random, kept_back: bool = False
) -> list[tuple[str, Box]]:
    """Phrases with the box of what they refer to: one or two for an item, one for some groups."""
    items, regions = scene.items, []
    for item in items:
        voice = Voice(rng)
        only = [d for d in loose_descriptions(item) if d.select(items, strict=False) == [item]]
        texts = [rng.choice(only).say(voice, rng.choice(("the", "a", "")))] if only else []
        texts.append(_where(item, items, voice, rng))
        regions += [(exchange(text, rng, kept_back), item.box) for text in texts if text]
    for d in sorted({d for item in items for d in loose_descriptions(item)}, key=repr):
        members = d.select(items)
        if len(members) > 1 and d.certain(items) and d.noun != SOMETHING and rng.random() < 0.3:
            number = rng.choice(("", "the ", f"{NUMBERS[len(members)]} ", "all the "))
            text = number + d.many(Voice(rng))
            regions.append((exchange(text, rng, kept_back), union(members)))
    return regions


def loose_absent(items: tuple[Item, ...], rng: random.Random) -> Loose:
    """A description that nobody would find here: a wrong colour or size, or another thing."""
    while True:
        item = rng.choice(items)
        choice = rng.random()
        if choice < 0.4:
            d = Loose(rng.choice(nouns_of(item.kind)), rng.choice(ALL_COLOURS))
        elif choice < 0.5:
            d = Loose(rng.choice(("thing", SOMETHING)), rng.choice(ALL_COLOURS))
        elif choice < 0.6 and item.size:
            d = Loose(rng.choice(nouns_of(item.kind)), "", rng.choice(("small", "large")))
        elif choice < 0.8:
            d = Loose(rng.choice(GENERAL))
        else:
            d = Loose(rng.choice((*NAMES, *SHAPES)))
        if not d.select(items, strict=False) and not held_out_colour(d.colour, d.noun):
            return d


def loose_absent_phrases(scene: Scene, rng: random.Random, kept_back: bool = False) -> list[str]:
    """Four phrases for what is not here, the last a list with one wrong part."""
    voice, items = Voice(rng), scene.items
    found = [
        loose_absent(items, rng).say(voice, rng.choice(("the", "a", "", "a"))) for _ in range(3)
    ]
    parts = [rng.choice(loose_descriptions(rng.choice(items))), loose_absent(items, rng)]
    rng.shuffle(parts)
    found.append(join([d.say(voice, "a") for d in parts]))
    return [exchange(text, rng, kept_back) for text in found]


def loose_captions(scene: Scene, rng: random.Random, kept_back: bool = False) -> list[str]:
    """True texts that say less than a caption: some of the things, and a mere list of kinds."""
    items, voice = scene.items, Voice(rng)
    some = rng.sample(items, rng.randint(1, min(3, len(items))))
    parts = dict.fromkeys(rng.choice(loose_descriptions(item)) for item in some)
    kinds = list(dict.fromkeys(item.kind for item in rng.sample(items, len(items))))
    names = [voice.name(kind) for kind in kinds]
    listed = [
        plural(name) if len(Loose(kind).select(items)) > 1 else name
        for kind, name in zip(kinds, names, strict=True)
    ]
    texts = [
        join([d.say(voice, "a") for d in parts]),
        rng.choice((", ".join(listed), join(listed), " ".join(listed))),
    ]
    return [exchange(text, rng, kept_back) for text in texts]
