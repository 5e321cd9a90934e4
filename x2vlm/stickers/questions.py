"""Questions about a scene whose answer, one of `ANSWERS`, is beyond doubt; yes and no are equally
likely.

Every maker takes (scene, rng) and returns (question, answer), or None when the scene has nothing
for it to ask.
"""

import random
from collections.abc import Callable
from itertools import permutations

from x2vlm.stickers.concepts import (
    BACKGROUNDS,
    COLOURS,
    CONTAINERS,
    FAMILIES,
    FAMILY,
    NUMBERS,
    POSITIONS,
    article,
    plural,
)
from x2vlm.stickers.geometry import RELATIONS, Item, Scene, holds, positions
from x2vlm.stickers.language import (
    Description,
    Voice,
    absent_description,
    descriptions,
    name_uniquely,
    unique_descriptions,
)
from x2vlm.stickers.splits import held_out_relation

Question = tuple[str, str]
TRIES = 8


def _verb(description: Description) -> str:
    return "is" if description.count == 1 else "are"


def ask_exists(scene: Scene, rng: random.Random) -> Question | None:
    """Is there a small dog?"""
    if rng.random() < 0.5:
        description, answer = rng.choice(descriptions(rng.choice(scene.items))), "yes"
    else:
        description, answer = absent_description(scene.items, rng, hard=rng.random() < 0.5), "no"
    return f"is there {description.say(Voice(rng))}?", answer


def ask_exactly(scene: Scene, rng: random.Random) -> Question | None:
    """Are there exactly two dogs?"""
    description = rng.choice(descriptions(rng.choice(scene.items)))
    count = len(description.select(scene.items))
    wanted, answer = count, "yes"
    if rng.random() < 0.5:
        wanted, answer = (
            rng.choice([n for n in range(1, 6) if n != count and abs(n - count) < 3]),
            "no",
        )
    said = Description(description.noun, description.colour, description.size, wanted)
    words = said.say(Voice(rng)) if wanted > 1 else f"one {said.say(Voice(rng), '')}"
    return f"{_verb(said)} there exactly {words}?", answer


def ask_relation(scene: Scene, rng: random.Random) -> Question | None:
    """Is the dog left of the cat? Only scenes where something stands clearly are asked, so that
    both answers occur."""
    names = [name_uniquely(item, scene.items, rng) for item in scene.items]
    right, wrong = [], []
    for i, j in permutations(range(len(names)), 2):
        a, b = scene.items[i], scene.items[j]
        for relation in RELATIONS if names[i] and names[j] else ():
            if holds(a, relation, b, strict=True):
                right.append((i, relation, j))
            elif holds(a, relation, b, strict=False) or held_out_relation(a.kind, relation, b.kind):
                continue
            elif relation != "inside" or b.kind in CONTAINERS:
                wrong.append((i, relation, j))
    if not right or not wrong:
        return None
    i, relation, j = rng.choice(right)
    answer = "yes"
    if rng.random() < 0.5:
        # A wrong statement with the same relation where there is one: the relation word alone must
        # not give it away.
        i, relation, j = rng.choice([triple for triple in wrong if triple[1] == relation] or wrong)
        answer = "no"
    voice = Voice(rng)
    return f"is {names[i].say(voice, 'the')} {relation} {names[j].say(voice, 'the')}?", answer


def ask_background_yes_no(scene: Scene, rng: random.Random) -> Question | None:
    """Is the scene at night?"""
    names = [name for name in BACKGROUNDS if name != scene.background]
    name, answer = (scene.background, "yes") if rng.random() < 0.5 else (rng.choice(names), "no")
    return f"is the scene {BACKGROUNDS[name]}?", answer


def ask_more(scene: Scene, rng: random.Random) -> Question | None:
    """Are there more dogs than cats?"""
    kinds = sorted(
        {item.kind for item in scene.items} | {FAMILY[i.kind] for i in scene.items} & set(FAMILIES)
    )
    count = {kind: len(Description(kind).select(scene.items)) for kind in kinds}
    pairs = [
        (a, b)
        for a in kinds
        for b in kinds
        if FAMILY.get(a) != b and FAMILY.get(b) != a and count[a] > count[b]
    ]
    if not pairs:
        return None
    more, fewer = rng.choice(pairs)
    answer = rng.choice(("yes", "no"))
    first, second = (more, fewer) if answer == "yes" else (fewer, more)
    return f"are there more {plural(first)} than {plural(second)}?", answer


def ask_at_position(scene: Scene, rng: random.Random) -> Question | None:
    """Is the dog at the top left?"""
    item = rng.choice(scene.items)
    name, cells = name_uniquely(item, scene.items, rng), positions(item, strict=True)
    if name is None or not cells:
        return None
    cell, answer = cells[0], "yes"
    if rng.random() < 0.5:
        cell, answer = (
            rng.choice([c for c in POSITIONS if c not in positions(item, strict=False)]),
            "no",
        )
    return f"is {name.say(Voice(rng), 'the')} {POSITIONS[cell]}?", answer


def ask_colour(scene: Scene, rng: random.Random) -> Question | None:
    """What colour is the star?"""
    found = [
        (d, item.colour)
        for item in scene.items
        if item.colour
        for d in unique_descriptions(item, scene.items)
        if not d.colour
    ]
    if not found:
        return None
    description, colour = rng.choice(found)
    return f"what colour is {description.say(Voice(rng), 'the')}?", colour


def ask_shape(scene: Scene, rng: random.Random) -> Question | None:
    """What is the red shape?"""
    found = [
        (d, item.kind)
        for item in scene.items
        if item.colour
        for d in unique_descriptions(item, scene.items)
        if d.noun == "shape"
    ]
    if not found:
        return None
    description, shape = rng.choice(found)
    return f"what is {description.say(Voice(rng), 'the')}?", shape


def ask_kind(scene: Scene, rng: random.Random) -> Question | None:
    """Which animal is there? Asked when all animals here are of one kind."""
    families = sorted({FAMILY[item.kind] for item in scene.items} & set(FAMILIES))
    kinds = {
        family: {i.kind for i in scene.items if FAMILY[i.kind] == family} for family in families
    }
    single = [family for family in families if len(kinds[family]) == 1]
    if not single:
        return None
    family = rng.choice(single)
    return rng.choice((f"which {family} is there?", f"what kind of {family} is there?")), next(
        iter(kinds[family])
    )


def ask_count(scene: Scene, rng: random.Random) -> Question | None:
    """How many dogs are there?"""
    if rng.random() < 0.12:
        description = absent_description(scene.items, rng, hard=rng.random() < 0.5)
    else:
        several = [
            d for item in scene.items for d in descriptions(item) if len(d.select(scene.items)) > 1
        ]
        single = descriptions(rng.choice(scene.items))
        description = rng.choice(several if several and rng.random() < 0.7 else single)
    count = len(description.select(scene.items))
    words = (
        Description(description.noun, description.colour, description.size, 2)
        .say(Voice(rng))
        .removeprefix("two ")
    )
    return f"how many {words} are there?", NUMBERS[count]


def ask_total(scene: Scene, rng: random.Random) -> Question | None:
    """How many stickers are there in total?"""
    return "how many stickers are there in total?", NUMBERS[len(scene.items)]


def ask_kinds(scene: Scene, rng: random.Random) -> Question | None:
    """How many different kinds are there? Colours and sizes do not make a kind."""
    return "how many different kinds of stickers are there?", NUMBERS[
        len({item.kind for item in scene.items})
    ]


def ask_size(scene: Scene, rng: random.Random) -> Question | None:
    """What size is the dog?"""
    item = rng.choice(scene.items)
    names = [d for d in unique_descriptions(item, scene.items) if not d.size]
    if not names or not item.size:
        return None
    name = rng.choice(names).say(Voice(rng), "the")
    return rng.choice((f"what size is {name}?", f"is {name} small or large?")), item.size


def ask_where(scene: Scene, rng: random.Random) -> Question | None:
    """Where is the dog?"""
    item = rng.choice(scene.items)
    name, cells = name_uniquely(item, scene.items, rng), positions(item, strict=True)
    return (f"where is {name.say(Voice(rng), 'the')}?", cells[0]) if name and cells else None


def _only(items: list[Item], sure: list[Item]) -> str:
    """The kind of the one item in question; "" when another comes near or it is not sure."""
    return items[0].kind if len(items) == 1 and items == sure else ""


def ask_what_relation(scene: Scene, rng: random.Random) -> Question | None:
    """What is left of the cat? Asked when one item alone comes even near the answer."""
    for _ in range(TRIES):
        anchor = rng.choice(scene.items)
        name = name_uniquely(anchor, scene.items, rng)
        relation = rng.choice(RELATIONS)
        near, sure = (
            [x for x in scene.items if holds(x, relation, anchor, strict)]
            for strict in (False, True)
        )
        answer = _only(near, sure)
        if name and answer:
            return f"what is {relation} {name.say(Voice(rng), 'the')}?", answer
    return None


def ask_what_position(scene: Scene, rng: random.Random) -> Question | None:
    """What is at the top left?"""
    cells = positions(rng.choice(scene.items), strict=True)
    if not cells:
        return None
    near, sure = (
        [x for x in scene.items if cells[0] in positions(x, strict)] for strict in (False, True)
    )
    answer = _only(near, sure)
    return (f"what is {POSITIONS[cells[0]]}?", answer) if answer else None


def ask_background(scene: Scene, rng: random.Random) -> Question | None:
    """What is the background?"""
    return rng.choice(
        ("what is the background?", "what does the background look like?")
    ), scene.background


Maker = Callable[[Scene, random.Random], Question | None]
# Makers that need no places: the only ones for videos, whose frames the model averages.
CONTENT_MAKERS: dict[str, Maker] = {
    "exists": ask_exists,
    "colour": ask_colour,
    "shape": ask_shape,
    "kind": ask_kind,
    "count": ask_count,
    "kinds": ask_kinds,
    "more": ask_more,
    "background": ask_background,
    "background_yes_no": ask_background_yes_no,
}
MAKERS: dict[str, Maker] = CONTENT_MAKERS | {
    "exactly": ask_exactly,
    "total": ask_total,
    "size": ask_size,
    "where": ask_where,
    "position_yes_no": ask_at_position,
    "relation_yes_no": ask_relation,
    "what_relation": ask_what_relation,
    "what_position": ask_what_position,
}


def questions(
    scene: Scene, rng: random.Random, count: int = 8, makers: dict[str, Maker] = MAKERS
) -> list[dict]:
    """Up to `count` questions as {"question", "answer", "kind"}, of as many kinds as the scene
    gives."""
    found: dict[str, dict] = {}
    kinds = rng.sample(sorted(makers), len(makers))
    for kind in kinds:
        if len(found) == count:
            break
        made = makers[kind](scene, rng)
        if made:
            found[made[0]] = {"question": made[0], "answer": made[1], "kind": kind}
    return list(found.values())


def _ask_held_out_shape(
    item: Item, items: tuple[Item, ...], rng: random.Random
) -> list[tuple[str, str, str]]:
    shape = Description(item.kind, item.colour)
    other = rng.choice([c for c in COLOURS if not Description(item.kind, c).select(items)])
    asked = [
        (f"is there {shape.say(Voice())}?", "yes", "exists"),
        (f"is there {article(f'{other} {item.kind}')}?", "no", "exists"),
        (
            f"how many {item.colour} {plural(item.kind)} are there?",
            NUMBERS[len(shape.select(items))],
            "count",
        ),
    ]
    if len(Description(item.kind).select(items)) == 1:
        asked.append((f"what colour is the {item.kind}?", item.colour, "colour"))
    if len(Description("shape", item.colour).select(items)) == 1:
        asked.append((f"what is the {item.colour} shape?", item.kind, "shape"))
    return asked


def _ask_held_out_relation(
    a: Item, b: Item, items: tuple[Item, ...], rng: random.Random
) -> list[tuple[str, str, str]]:
    asked = []
    for x, y in ((a, b), (b, a)):
        first, second = name_uniquely(x, items, rng), name_uniquely(y, items, rng)
        for relation in RELATIONS:
            true, near = (holds(x, relation, y, strict) for strict in (True, False))
            # Asked both ways round: the combination itself (yes) and its reverse (no).
            spoken = held_out_relation(x.kind, relation, y.kind) or held_out_relation(
                y.kind, relation, x.kind
            )
            if first and second and spoken and true == near:
                text = f"is {first.say(Voice(), 'the')} {relation} {second.say(Voice(), 'the')}?"
                asked.append((text, "yes" if true else "no", "relation_yes_no"))
            if (
                second
                and true
                and spoken
                and [i for i in items if holds(i, relation, y, strict=False)] == [x]
            ):
                asked.append(
                    (f"what is {relation} {second.say(Voice(), 'the')}?", x.kind, "what_relation")
                )
    return asked


def held_out_questions(
    scene: Scene, combination: tuple[int, ...], rng: random.Random
) -> list[dict]:
    """Questions about a held-out combination, (i,) or (i, j) as `splits.held_out_items` gives
    it."""
    members = [scene.items[index] for index in combination]
    ask = _ask_held_out_shape if len(members) == 1 else _ask_held_out_relation
    return [
        {"question": q, "answer": answer, "kind": kind}
        for q, answer, kind in ask(*members, scene.items, rng)
    ]
