"""Captions of scenes: lists, relations, positions, one thing alone, and false ones.

Every caption but `false_caption` is true of its scene. All follow one grammar, which `checker`
parses:

    caption  := [intro] clause {(", " | " and " | ", and ") clause} [" " background]
    clause   := noun phrase [relation noun phrase | position]
"""

import random
from dataclasses import replace

from x2vlm.stickers.concepts import BACKGROUNDS, COLOURS, NAMES, NUMBERS, POSITIONS, SHAPES
from x2vlm.stickers.geometry import RELATIONS, Item, Scene, holds, positions
from x2vlm.stickers.language import Description, Voice, allowed, groups
from x2vlm.stickers.splits import held_out_colour

MAX_WORDS = 24


def join(clauses: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(clauses[:-1]), clauses[-1]) if part)


def list_caption(
    scene: Scene, rng: random.Random, detail: int, background: bool = True, shuffle: bool = False
) -> str:
    """Everything in the image, from left to right unless shuffled, at most `MAX_WORDS` words:
    details give way."""
    voice = Voice(rng)
    while True:
        parts = [description for description, _ in groups(scene.items, detail)]
        if shuffle:
            rng.shuffle(parts)
        text = _list(parts, voice, scene.background if background else "")
        if len(text.split()) <= MAX_WORDS:
            return text
        detail, background = max(0, detail - 1), background and detail > 0


def _list(parts: list[Description], voice: Voice, background: str) -> str:
    return " ".join(
        part
        for part in (join([part.say(voice) for part in parts]), BACKGROUNDS.get(background, ""))
        if part
    )


def false_caption(scene: Scene, rng: random.Random) -> str:
    """A caption like the first of `captions` that is wrong in one thing: a kind, a colour, a number
    or the background."""
    parts, background = [description for description, _ in groups(scene.items, 1)], scene.background
    wrong = rng.choice(("kind", "kind", "kind", "number", "number", "colour", "background"))
    at = rng.randrange(len(parts))
    said = parts[at]
    if wrong == "background":
        background = rng.choice([name for name in BACKGROUNDS if name != background])
    elif wrong == "number":
        parts[at] = replace(
            said, count=rng.choice([n for n in range(1, 6) if abs(n - said.count) == 1])
        )
    elif wrong == "colour" and said.colour:
        colours = [
            colour
            for colour in COLOURS
            if allowed(d := replace(said, colour=colour)) and not d.select(scene.items)
        ]
        parts[at] = replace(said, colour=rng.choice(colours))
    else:
        present = {item.kind for item in scene.items}
        kinds = [kind for kind in (SHAPES if said.colour else NAMES) if kind not in present]
        parts[at] = replace(
            said,
            noun=rng.choice([kind for kind in kinds if not held_out_colour(said.colour, kind)]),
        )
    text = _list(parts, Voice(rng), background)
    return text if len(text.split()) <= MAX_WORDS else _list([parts[at]], Voice(rng), background)


def _relation_clauses(items: tuple[Item, ...], rng: random.Random) -> list[tuple[str, set[int]]]:
    """ "a dog left of two cats": every member of both groups stands so."""
    parts = groups(items, rng.choice((0, 1, 2, 2)))
    clauses, voice = [], Voice(rng)
    for first, members in parts:
        for second, others in parts:
            if first == second:
                continue
            for relation in RELATIONS:
                if all(holds(a, relation, b, strict=True) for a in members for b in others):
                    used = {items.index(item) for item in (*members, *others)}
                    clauses.append((f"{first.say(voice)} {relation} {second.say(voice)}", used))
    rng.shuffle(clauses)
    return clauses


def relation_caption(scene: Scene, rng: random.Random) -> str:
    """One or two relations between different items, maybe with the background; "" when nothing
    stands clearly."""
    clauses = _relation_clauses(scene.items, rng)
    if not clauses:
        return ""
    text, used = clauses[0]
    second = next((other for other, items in clauses if not items & used), None)
    if second and rng.random() < 0.6:
        text = f"{text}, and {second}"
    if rng.random() < 0.5:
        text += f" {BACKGROUNDS[scene.background]}"
    return text if len(text.split()) <= MAX_WORDS else clauses[0][0]


def position_caption(scene: Scene, rng: random.Random) -> str:
    """ "a dog at the top left and two cats on the right"; "" when nothing lies clearly in one
    place."""
    clauses, voice = {}, Voice(rng)
    for description, members in groups(scene.items, rng.choice((0, 1, 2))):
        cells = set.intersection(*(set(positions(item, strict=True)) for item in members))
        clauses |= {cell: f"{description.say(voice)} {POSITIONS[cell]}" for cell in cells}
    found = rng.sample(sorted(clauses.values()), min(len(clauses), rng.randint(1, 3)))
    while len(" ".join(found).split()) >= MAX_WORDS:
        found.pop()
    return join(found) if found else ""


def short_caption(scene: Scene, rng: random.Random) -> str:
    """What is in the image by name alone, with an introduction."""
    # Six names and an introduction leave no words for it.
    background = rng.random() < 0.3 and len(scene.items) < 6
    text = list_caption(scene, rng, detail=0, background=background, shuffle=True)
    if rng.random() < 0.5:
        return f"a picture of {text}"
    return ("there are " if text.split()[0] in NUMBERS else "there is ") + text


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Captions of different styles. The first names everything: numbers, colours and kinds from
    left to right, and the background (unless it would pass `MAX_WORDS`)."""
    found = [
        list_caption(scene, rng, detail=1),
        short_caption(scene, rng),
        list_caption(scene, rng, detail=2, background=False, shuffle=True),
        relation_caption(scene, rng),
        position_caption(scene, rng),
    ]
    return [text for text in dict.fromkeys(found) if text]
