"""Sampling scenes: what is in the image, then where, then how it looks. A pure function of seed and
`WORLD_VERSION`."""

import random
from dataclasses import dataclass, replace

from x2vlm.stickers.concepts import BACKGROUNDS, COLOURS, CONTAINERS, NAMES, SHAPES
from x2vlm.stickers.geometry import RELATIONS, Item, Look, Scene, contains, holds
from x2vlm.stickers.splits import (
    HELD_OUT_COLOURS,
    HELD_OUT_RELATIONS,
    check_seed,
    held_out_colour,
    held_out_items,
)
from x2vlm.stickers.sprites import box_size

WORLD_VERSION = 3
MAX_ITEMS = 6
ITEM_COUNT_WEIGHTS = (18, 26, 24, 16, 10, 6)
GROUP_WEIGHTS = (72, 14, 7, 4, 3)
# Longer side of the box, in image sides.
SMALL, LARGE, CONTAINER = (
    (0.24, 0.28),
    (0.36, 0.42),
    (0.44, 0.50),
)
ANGLES = range(-20, 21, 5)
EDGE, GAP = 0.012, 0.015


@dataclass(frozen=True)
class Wish:
    """One item to place: everything but where."""

    kind: str
    colour: str
    size: str


@dataclass(frozen=True)
class Bond:
    """Two wishes, by index, that must end up in a relation."""

    first: int
    relation: str
    second: int


def random_source(purpose: str, seed: int) -> random.Random:
    """The one way randomness enters: a generator for a purpose and a seed."""
    return random.Random(f"{purpose} {WORLD_VERSION} {seed}")


def sample_look(rng: random.Random) -> Look:
    """How one image is disturbed; most are only a little."""
    return Look(
        seed=rng.randrange(2**31),
        blur=rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 0.0,
        noise=rng.uniform(2, 9) if rng.random() < 0.4 else 0.0,
        brightness=rng.uniform(0.82, 1.15) if rng.random() < 0.5 else 1.0,
        jpeg=rng.randrange(60, 95) if rng.random() < 0.3 else 0,
    )


def sample_wish(rng: random.Random, kind: str = "") -> Wish:
    """One random item, of the given kind if named; never of a held-out colour."""
    kind = kind or (rng.choice(SHAPES) if rng.random() < 0.2 else rng.choice(NAMES))
    colour = (
        rng.choice([c for c in COLOURS if not held_out_colour(c, kind)]) if kind in SHAPES else ""
    )
    return Wish(kind, colour, "small" if rng.random() < 0.55 else "large")


def sample_wishes(rng: random.Random, count: int, given: tuple[Wish, ...] = ()) -> list[Wish]:
    """`count` wishes beginning with the given ones: single items, groups of a kind, and look-alikes
    that differ from an earlier item in size or colour. Given kinds stay without look-alikes, so
    that they can be named."""
    wishes = list(given)
    while len(wishes) < count:
        if len(wishes) > len(given) and rng.random() < 0.28:
            like = rng.choice(wishes[len(given) :])
            wish = sample_wish(rng, like.kind)
            if wish.colour == like.colour:
                wish = replace(wish, size="small" if like.size == "large" else "large")
            wishes.append(wish)
            continue
        wish = sample_wish(rng)
        if any(wish.kind == other.kind for other in wishes):
            continue
        size = min(rng.choices(range(1, 6), GROUP_WEIGHTS)[0], count - len(wishes))
        mixed = rng.random() < 0.2
        wishes += [
            replace(wish, size=rng.choice(("small", "large"))) if mixed else wish
            for _ in range(size)
        ]
    return wishes


def _free(box: tuple[float, ...], others: list[Item]) -> bool:
    cx, cy, w, h = box
    inside = EDGE + w / 2 <= cx <= 1 - EDGE - w / 2 and EDGE + h / 2 <= cy <= 1 - EDGE - h / 2
    return inside and all(
        abs(cx - o.box[0]) >= (w + o.box[2]) / 2 + GAP
        or abs(cy - o.box[1]) >= (h + o.box[3]) / 2 + GAP
        for o in others
    )


def _place_beside(
    rng: random.Random, w: float, h: float, other: Item, relation: str
) -> tuple[float, float]:
    """A centre for a w x h box that stands in the relation to `other` and is well aligned with
    it."""
    ox, oy, ow, oh = other.box
    if relation == "inside":
        return ox + rng.uniform(-0.02, 0.02), oy + rng.uniform(-0.02, 0.02)
    if relation == "next to":
        relation, room = rng.choice(("left of", "right of", "above", "below")), 0.03
    else:
        room = 0.3
    gap = GAP + rng.uniform(0.002, room)
    if relation in ("left of", "right of"):
        step = (ow + w) / 2 + gap
        return ox + (-step if relation == "left of" else step), oy + rng.uniform(-0.35, 0.35) * step
    step = (oh + h) / 2 + gap
    return ox + rng.uniform(-0.35, 0.35) * step, oy + (-step if relation == "above" else step)


def place(rng: random.Random, wishes: list[Wish], bond: Bond | None = None) -> list[Item] | None:
    """Put the wishes into the unit square without overlap (one may lie inside a container); None
    when they do not fit.

    Returns the items in the order of the wishes.
    """
    order = sorted(range(len(wishes)), key=lambda i: wishes[i].size == "small")
    if bond:  # its second item stands first, so that the first can be put beside it
        order = [bond.second, bond.first, *(i for i in order if i not in (bond.first, bond.second))]
    placed: dict[int, Item] = {}
    for index in order:
        wish = wishes[index]
        bonded = bond is not None and index == bond.first
        holder = bond is not None and index == bond.second and bond.relation == "inside"
        angle, flip = rng.choice(ANGLES), rng.random() < 0.5
        side = rng.uniform(*(CONTAINER if holder else LARGE if wish.size == "large" else SMALL))
        w, h = box_size(wish.kind, side, angle, flip)
        others = list(placed.values())
        neighbours = [] if bonded and bond.relation == "inside" else others
        for _ in range(30):
            if bonded:
                cx, cy = _place_beside(rng, w, h, placed[bond.second], bond.relation)
            elif others and rng.random() < 0.5:
                cx, cy = _place_beside(rng, w, h, rng.choice(others), rng.choice(RELATIONS[:5]))
            else:
                cx = rng.uniform(EDGE + w / 2, 1 - EDGE - w / 2)
                cy = rng.uniform(EDGE + h / 2, 1 - EDGE - h / 2)
            if _free((cx, cy, w, h), neighbours):
                break
        else:
            return None
        placed[index] = Item(wish.kind, wish.colour, wish.size, (cx, cy, w, h), angle, flip)
        if bonded and not holds(placed[index], bond.relation, placed[bond.second], strict=True):
            return None
    return [placed[index] for index in range(len(wishes))]


def _inside_bond(rng: random.Random, wishes: list[Wish]) -> Bond | None:
    """Sometimes lay a small item on a large container, where the wishes have both."""
    holders = [
        i for i, wish in enumerate(wishes) if wish.kind in CONTAINERS and wish.size == "large"
    ]
    if not holders or rng.random() < 0.35:
        return None
    holder = rng.choice(holders)
    small = [
        i for i, w in enumerate(wishes) if w.size == "small" and w.colour != wishes[holder].colour
    ]
    return Bond(rng.choice(small), "inside", holder) if small else None


def _held_out_wishes(rng: random.Random) -> tuple[tuple[Wish, ...], Bond | None]:
    """The heart of an `unseen` scene: a coloured shape or two items in a relation that no other
    split contains."""
    sizes = ("small", "large")
    if rng.random() < 0.5:
        colour, shape = rng.choice(sorted(HELD_OUT_COLOURS))
        return (Wish(shape, colour, rng.choice(sizes)),), None
    a, relation, b = rng.choice(sorted(HELD_OUT_RELATIONS))
    first, second = sample_wish(rng, a), sample_wish(rng, b)
    if relation == "inside":
        first, second = replace(first, size="small"), replace(second, size="large")
    return (first, second), Bond(0, relation, 1)


def compose(
    rng: random.Random,
    split: str,
    max_items: int = MAX_ITEMS,
    wishes: tuple[Wish, ...] = (),
    bond: Bond | None = None,
    background: str = "",
    min_items: int = 1,
) -> Scene:
    """Sample one scene that fulfils the given wishes and their bond, and respects the split's
    combinations: `unseen` holds one unless wishes are given, all other splits none."""
    unseen = split == "unseen" and not wishes
    for attempt in range(1000):
        given, tie = _held_out_wishes(rng) if unseen else (wishes, bond)
        count = rng.choices(
            range(min_items, max_items + 1), ITEM_COUNT_WEIGHTS[min_items - 1 : max_items]
        )[0]
        plan = sample_wishes(rng, count, given)
        tie = tie or (None if given else _inside_bond(rng, plan))
        if attempt % 4 == 3:  # crowded: make what nobody asked for small
            plan = list(given) + [replace(wish, size="small") for wish in plan[len(given) :]]
            tie = tie if given else None
        items = place(rng, plan, tie)
        if items is None:
            continue
        held_out = bool(held_out_items(tuple(items)))
        if (unseen and not held_out) or (split != "unseen" and held_out):
            continue
        drawn = sorted(
            items,
            key=lambda item: any(contains(other, item) for other in items if other is not item),
        )
        return Scene(background or rng.choice(tuple(BACKGROUNDS)), tuple(drawn), sample_look(rng))
    raise RuntimeError("no scene fulfils these wishes")


def sample_scene(
    seed: int, split: str = "train", max_items: int = MAX_ITEMS, min_items: int = 1
) -> Scene:
    """The scene of a seed of `split_seeds(split)`, with `min_items` to `max_items` (1-6) stickers.

    Raises `ParameterError` for an unknown split or a seed outside it.
    """
    check_seed(seed, split)
    return compose(random_source("scene", seed), split, max_items, min_items=min_items)
