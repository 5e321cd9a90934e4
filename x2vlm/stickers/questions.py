"""Questions about a scene whose answer, one of `ANSWERS`, is beyond doubt; yes and no are equally likely.

Every maker takes (scene, rng) and returns (question, answer), or None when the scene has nothing for it to ask.
"""

import random
from collections.abc import Callable

from x2vlm.stickers.concepts import (
    BACKGROUNDS,
    COLOURS,
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
    if rng.random() < 0.5:
        description, answer = rng.choice(descriptions(rng.choice(scene.items))), "yes"
    else:
        description, answer = absent_description(scene.items, rng, hard=rng.random() < 0.5), "no"
    return f"is there {description.say(rng)}?", answer


def ask_exactly(scene: Scene, rng: random.Random) -> Question | None:
    description = rng.choice(descriptions(rng.choice(scene.items)))
    count = len(description.select(scene.items))
    wanted, answer = count, "yes"
    if rng.random() < 0.5:
        wanted, answer = rng.choice([n for n in range(1, 6) if n != count and abs(n - count) < 3]), "no"
    said = Description(description.noun, description.colour, description.size, wanted)
    words = said.say(rng) if wanted > 1 else f"one {said.say(rng, '')}"
    return f"{_verb(said)} there exactly {words}?", answer


def ask_relation(scene: Scene, rng: random.Random) -> Question | None:
    answer = rng.choice(("yes", "no"))
    for _ in range(TRIES if len(scene.items) > 1 else 0):
        a, b = rng.sample(scene.items, 2)
        first, second = name_uniquely(a, scene.items, rng), name_uniquely(b, scene.items, rng)
        relation = rng.choices(RELATIONS, (4, 4, 4, 4, 3, 4 if b.size == "large" and b.colour else 1))[0]
        true = holds(a, relation, b, strict=True)
        sure = true or not holds(a, relation, b, strict=False)
        spoken = answer == "yes" or not held_out_relation(a.kind, relation, b.kind)
        if first and second and first != second and sure and spoken and true == (answer == "yes"):
            return f"is {first.say(rng, 'the')} {relation} {second.say(rng, 'the')}?", answer
    return None


def ask_background_yes_no(scene: Scene, rng: random.Random) -> Question | None:
    names = [name for name in BACKGROUNDS if name != scene.background]
    name, answer = (scene.background, "yes") if rng.random() < 0.5 else (rng.choice(names), "no")
    return f"is the scene {BACKGROUNDS[name]}?", answer


def ask_more(scene: Scene, rng: random.Random) -> Question | None:
    kinds = sorted({item.kind for item in scene.items} | {FAMILY[i.kind] for i in scene.items} & set(FAMILIES))
    count = {kind: len(Description(kind).select(scene.items)) for kind in kinds}
    pairs = [(a, b) for a in kinds for b in kinds if FAMILY.get(a) != b and FAMILY.get(b) != a and count[a] > count[b]]
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
        cell, answer = rng.choice([c for c in POSITIONS if c not in positions(item, strict=False)]), "no"
    return f"is {name.say(rng, 'the')} {POSITIONS[cell]}?", answer


def ask_colour(scene: Scene, rng: random.Random) -> Question | None:
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
    return f"what colour is {description.say(rng, 'the')}?", colour


def ask_shape(scene: Scene, rng: random.Random) -> Question | None:
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
    return f"what is {description.say(rng, 'the')}?", shape


def ask_kind(scene: Scene, rng: random.Random) -> Question | None:
    """Which animal is there? Asked when all animals here are of one kind."""
    families = sorted({FAMILY[item.kind] for item in scene.items} & set(FAMILIES))
    kinds = {family: {i.kind for i in scene.items if FAMILY[i.kind] == family} for family in families}
    single = [family for family in families if len(kinds[family]) == 1]
    if not single:
        return None
    family = rng.choice(single)
    return rng.choice((f"which {family} is there?", f"what kind of {family} is there?")), next(iter(kinds[family]))


def ask_count(scene: Scene, rng: random.Random) -> Question | None:
    if rng.random() < 0.12:
        description = absent_description(scene.items, rng, hard=rng.random() < 0.5)
    else:
        several = [d for item in scene.items for d in descriptions(item) if len(d.select(scene.items)) > 1]
        single = descriptions(rng.choice(scene.items))
        description = rng.choice(several if several and rng.random() < 0.7 else single)
    count = len(description.select(scene.items))
    words = Description(description.noun, description.colour, description.size, 2).say(rng).removeprefix("two ")
    return f"how many {words} are there?", NUMBERS[count]


def ask_total(scene: Scene, rng: random.Random) -> Question | None:
    return "how many stickers are there in total?", NUMBERS[len(scene.items)]


def ask_kinds(scene: Scene, rng: random.Random) -> Question | None:
    return "how many different kinds of stickers are there?", NUMBERS[len({item.kind for item in scene.items})]


def ask_size(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.items)
    names = [d for d in unique_descriptions(item, scene.items) if not d.size]
    if not names or not item.size:
        return None
    name = rng.choice(names).say(rng, "the")
    return rng.choice((f"what size is {name}?", f"is {name} small or large?")), item.size


def ask_where(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.items)
    name, cells = name_uniquely(item, scene.items, rng), positions(item, strict=True)
    return (f"where is {name.say(rng, 'the')}?", cells[0]) if name and cells else None


def _only(items: list[Item], sure: list[Item]) -> str:
    """The kind of the one item in question; "" when another comes near or it is not sure."""
    return items[0].kind if len(items) == 1 and items == sure else ""


def ask_what_relation(scene: Scene, rng: random.Random) -> Question | None:
    """What is left of the cat? Asked when one item alone comes even near the answer."""
    for _ in range(TRIES):
        anchor = rng.choice(scene.items)
        name = name_uniquely(anchor, scene.items, rng)
        relation = rng.choice(RELATIONS)
        near, sure = ([x for x in scene.items if holds(x, relation, anchor, strict)] for strict in (False, True))
        answer = _only(near, sure)
        if name and answer:
            return f"what is {relation} {name.say(rng, 'the')}?", answer
    return None


def ask_what_position(scene: Scene, rng: random.Random) -> Question | None:
    """What is at the top left?"""
    cells = positions(rng.choice(scene.items), strict=True)
    if not cells:
        return None
    near, sure = ([x for x in scene.items if cells[0] in positions(x, strict)] for strict in (False, True))
    answer = _only(near, sure)
    return (f"what is {POSITIONS[cells[0]]}?", answer) if answer else None


def ask_background(scene: Scene, rng: random.Random) -> Question | None:
    return rng.choice(("what is the background?", "what does the background look like?")), scene.background


Maker = Callable[[Scene, random.Random], Question | None]
# Makers that need no places: the only ones for clips, whose frames the model averages.
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


def questions(scene: Scene, rng: random.Random, count: int = 8, makers: dict[str, Maker] = MAKERS) -> list[dict]:
    """Up to `count` questions as {"question", "answer", "kind"}, of as many kinds as the scene gives."""
    found: dict[str, dict] = {}
    kinds = rng.sample(sorted(makers), len(makers))
    for kind in kinds:
        if len(found) == count:
            break
        made = makers[kind](scene, rng)
        if made:
            found[made[0]] = {"question": made[0], "answer": made[1], "kind": kind}
    return list(found.values())


def held_out_questions(scene: Scene, members: tuple[int, ...], rng: random.Random) -> list[dict]:
    """Questions about a held-out combination: the colour, shape and presence of (i,), or the relation of (i, j)."""
    items = scene.items
    asked: list[tuple[str, str, str]] = []
    if len(members) == 1:
        item = items[members[0]]
        shape = Description(item.kind, item.colour)
        asked.append((f"is there {shape.say(rng)}?", "yes", "exists"))
        asked.append(
            (f"how many {item.colour} {plural(item.kind)} are there?", NUMBERS[len(shape.select(items))], "count")
        )
        if len(Description(item.kind).select(items)) == 1:
            asked.append((f"what colour is the {item.kind}?", item.colour, "colour"))
        if len(Description("shape", item.colour).select(items)) == 1:
            asked.append((f"what is the {item.colour} shape?", item.kind, "shape"))
        others = [c for c in COLOURS if not Description(item.kind, c).select(items)]
        asked.append((f"is there {article(f'{rng.choice(others)} {item.kind}')}?", "no", "exists"))
    else:
        a, b = (items[index] for index in members)
        first, second = name_uniquely(a, items, rng), name_uniquely(b, items, rng)
        for relation in RELATIONS:
            sure = holds(a, relation, b, strict=True)
            near = holds(a, relation, b, strict=False)
            if first and second and sure == near and (sure or relation != "inside"):
                answer = "yes" if sure else "no"
                text = f"is {first.say(rng, 'the')} {relation} {second.say(rng, 'the')}?"
                asked.append((text, answer, "relation_yes_no"))
            if second and sure and [x for x in items if holds(x, relation, b, strict=False)] == [a]:
                asked.append((f"what is {relation} {second.say(rng, 'the')}?", a.kind, "what_relation"))
    return [{"question": q, "answer": answer, "kind": kind} for q, answer, kind in asked]
