"""Two images at a time: captions of the same words in another order, and statements about a pair of
images."""

import random
from collections.abc import Callable
from dataclasses import replace

from x2vlm.stickers.captions import join
from x2vlm.stickers.checker import check_caption
from x2vlm.stickers.concepts import BACKGROUNDS, COLOURS, NUMBERS, SHAPES
from x2vlm.stickers.geometry import Scene
from x2vlm.stickers.language import Description, Voice, absent_description, descriptions
from x2vlm.stickers.scene import Bond, Wish, compose, random_source, sample_wish
from x2vlm.stickers.splits import (
    HELD_OUT_COLOURS,
    HELD_OUT_RELATIONS,
    check_seed,
    held_out_colour,
    held_out_relation,
)

ORDER_RELATIONS = ("left of", "right of", "above", "below")
# What one image must hold, and the caption that says so.
Plan = tuple[tuple[Wish, ...], Bond | None, str]


def _two_wishes(rng: random.Random) -> tuple[Wish, Wish]:
    first = second = sample_wish(rng)
    while first.kind == second.kind:
        second = sample_wish(rng)
    return first, second


def _relation_plans(rng: random.Random, split: str) -> list[Plan]:
    """ "a cat left of a dog" / "a dog left of a cat"."""
    a, b = _two_wishes(rng)
    relation = rng.choice(ORDER_RELATIONS)
    if split == "unseen":
        kind, relation, other = rng.choice(
            [x for x in sorted(HELD_OUT_RELATIONS) if x[1] in ORDER_RELATIONS]
        )
        a, b = sample_wish(rng, kind), sample_wish(rng, other)
    elif any(held_out_relation(x.kind, relation, y.kind) for x, y in ((a, b), (b, a))):
        return []
    return [
        ((x, y), Bond(0, relation, 1), " ".join((_say(x), relation, _say(y))))
        for x, y in ((a, b), (b, a))
    ]


def _size_plans(rng: random.Random, split: str) -> list[Plan]:
    """ "a small dog and a large cat" / "a large dog and a small cat"."""
    if split == "unseen":
        return []
    a, b = _two_wishes(rng)
    pairs = [
        (replace(a, size=x), replace(b, size=y))
        for x, y in (("small", "large"), ("large", "small"))
    ]
    return [(pair, None, join([_say(wish, size=True) for wish in pair])) for pair in pairs]


def _colour_plans(rng: random.Random, split: str) -> list[Plan]:
    """ "a red star and a blue circle" / "a blue star and a red circle"."""
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(tuple(COLOURS), 2)
    if split == "unseen":
        colours[0], shapes[0] = rng.choice(sorted(HELD_OUT_COLOURS))
    elif any(held_out_colour(colour, shape) for colour in colours for shape in shapes):
        return []
    if len(set(shapes)) < 2 or len(set(colours)) < 2:
        return []
    pairs = [
        tuple(Wish(s, c, "large") for s, c in zip(shapes, order))
        for order in (colours, colours[::-1])
    ]
    return [(pair, None, join([_say(wish) for wish in pair])) for pair in pairs]


def _count_plans(rng: random.Random, split: str) -> list[Plan]:
    """ "two dogs and three cats" / "three dogs and two cats"."""
    if split == "unseen":
        return []
    pair = [replace(wish, size="small") for wish in _two_wishes(rng)]
    counts = rng.choice(((2, 3), (2, 4), (3, 2), (4, 2)))
    plans: list[Plan] = []
    for order in (counts, counts[::-1]):
        wishes = tuple(wish for wish, count in zip(pair, order) for _ in range(count))
        plans.append(
            (wishes, None, join([_say(wish, count=count) for wish, count in zip(pair, order)]))
        )
    return plans


def _say(wish: Wish, size: bool = False, count: int = 1) -> str:
    return Description(wish.kind, wish.colour, wish.size if size else "", count).say(Voice())


def sample_order_pair(seed: int, split: str = "train") -> tuple[list[Scene], list[str]]:
    """Two scenes and two captions of the same words in another order; caption i is true of scene i
    alone.

    Raises `ParameterError` for an unknown split or a seed outside it.
    """
    check_seed(seed, split)
    rng = random_source("order", seed)
    while True:
        plans = rng.choice(
            (_relation_plans, _relation_plans, _size_plans, _colour_plans, _count_plans)
        )(rng, split)
        if not plans:
            continue
        background = rng.choice(tuple(BACKGROUNDS))
        scenes = [compose(rng, split, 4, wishes, bond, background) for wishes, bond, _ in plans]
        captions = [caption for *_, caption in plans]
        verdicts = [
            [check_caption(scene, caption).true for caption in captions] for scene in scenes
        ]
        if verdicts == [[True, False], [False, True]]:
            return scenes, captions


def _count_in(description: Description, scene: Scene) -> int:
    return len(description.select(scene.items))


def _state_number(
    left: Scene, right: Scene, d: Description, rng: random.Random
) -> tuple[str, bool]:
    side, scene = rng.choice((("left", left), ("right", right)))
    count = rng.randint(1, 3)
    words = replace(d, count=count).say(Voice(rng)) if count > 1 else f"one {d.say(Voice(rng), '')}"
    return f"the {side} picture shows exactly {words}", _count_in(d, scene) == count


def _state_both(left: Scene, right: Scene, d: Description, rng: random.Random) -> tuple[str, bool]:
    return f"both pictures show {d.say(Voice(rng))}", bool(
        _count_in(d, left) and _count_in(d, right)
    )


def _state_one(left: Scene, right: Scene, d: Description, rng: random.Random) -> tuple[str, bool]:
    return f"only one of the pictures shows {d.say(Voice(rng))}", bool(_count_in(d, left)) != bool(
        _count_in(d, right)
    )


def _state_neither(
    left: Scene, right: Scene, d: Description, rng: random.Random
) -> tuple[str, bool]:
    return f"neither of the pictures shows {d.say(Voice(rng))}", not _count_in(d, left) + _count_in(
        d, right
    )


def _state_total(left: Scene, right: Scene, d: Description, rng: random.Random) -> tuple[str, bool]:
    total = rng.randint(2, 6)
    words = replace(d, count=total).say(Voice(rng))
    return f"there are exactly {words} in the two pictures", _count_in(d, left) + _count_in(
        d, right
    ) == total


def _state_more(left: Scene, right: Scene, d: Description, rng: random.Random) -> tuple[str, bool]:
    (side, here), (other, there) = rng.sample((("left", left), ("right", right)), 2)
    words = replace(d, count=2).say(Voice()).removeprefix(f"{NUMBERS[2]} ")
    return f"the {side} picture has more {words} than the {other} picture", _count_in(
        d, here
    ) > _count_in(d, there)


def _state_background(
    left: Scene, right: Scene, d: Description, rng: random.Random
) -> tuple[str, bool]:
    name = rng.choice((left.background, right.background, *BACKGROUNDS))
    if rng.random() < 0.4:
        return f"both pictures are {BACKGROUNDS[name]}", left.background == right.background == name
    side, scene = rng.choice((("left", left), ("right", right)))
    return f"the {side} picture is {BACKGROUNDS[name]}", scene.background == name


Statement = Callable[[Scene, Scene, Description, random.Random], tuple[str, bool]]
STATEMENTS: tuple[Statement, ...] = (
    _state_number,
    _state_both,
    _state_one,
    _state_neither,
    _state_total,
    _state_more,
    _state_background,
)


def sample_image_pair(seed: int, split: str = "train") -> tuple[list[Scene], str, bool]:
    """A left and a right scene that share some items, a statement about them, and whether it is
    true (half of the time).

    Raises `ParameterError` for an unknown split or a seed outside it.
    """
    check_seed(seed, split)
    rng = random_source("pair", seed)
    label, state = rng.random() < 0.5, rng.choice(STATEMENTS)
    while True:
        left = compose(rng, split)
        shared = [
            Wish(item.kind, item.colour, item.size) for item in left.items if rng.random() < 0.6
        ][:4]
        background = left.background if rng.random() < 0.4 else ""
        right = compose(rng, split, wishes=tuple(shared), background=background)
        scenes = [left, right] if rng.random() < 0.5 else [right, left]
        for _ in range(4):
            item = rng.choice((*left.items, *right.items))
            description = rng.choice(descriptions(item))
            if rng.random() < 0.25:
                description = absent_description(
                    left.items + right.items, rng, hard=rng.random() < 0.5
                )
            statement, true = state(*scenes, description, rng)
            if true == label:
                return scenes, statement, label
