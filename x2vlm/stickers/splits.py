"""Splits with disjoint seeds, and the combinations that only the split `unseen` contains."""

from x2vlm.errors import ParameterError
from x2vlm.stickers.geometry import RELATIONS, Item, holds

_SEEDS = {
    "train": range(0, 10**9),
    "val": range(10**9, 11 * 10**8),
    "test": range(2 * 10**9, 21 * 10**8),
    "unseen": range(3 * 10**9, 31 * 10**8),
}
SPLITS = tuple(_SEEDS)

HELD_OUT_COLOURS = frozenset(
    {
        ("red", "triangle"),
        ("orange", "arrow"),
        ("yellow", "square"),
        ("green", "star"),
        ("blue", "heart"),
        ("purple", "cross"),
        ("pink", "circle"),
        ("brown", "ring"),
    }
)
HELD_OUT_RELATIONS = frozenset(
    {
        ("dog", "left of", "cat"),
        ("horse", "left of", "cow"),
        ("lion", "left of", "tiger"),
        ("duck", "left of", "owl"),
        ("apple", "left of", "banana"),
        ("car", "left of", "bus"),
        ("bicycle", "left of", "truck"),
        ("tree", "left of", "house"),
        ("guitar", "left of", "drum"),
        ("heart", "left of", "circle"),
        ("star", "left of", "square"),
        ("penguin", "above", "frog"),
        ("butterfly", "above", "sunflower"),
        ("airplane", "above", "ship"),
        ("sun", "above", "castle"),
        ("moon", "above", "tree"),
        ("hat", "above", "snowman"),
        ("lemon", "above", "pear"),
        ("circle", "above", "triangle"),
        ("bee", "next to", "rose"),
        ("monkey", "next to", "pineapple"),
        ("key", "next to", "lock"),
        ("fish", "inside", "circle"),
        ("book", "inside", "square"),
        ("spider", "inside", "ring"),
    }
)
_HELD_OUT_KINDS = frozenset((a, b) for a, _, b in HELD_OUT_RELATIONS)


def split_seeds(split: str) -> range:
    """The seeds of a split; `ParameterError` (param/split) for an unknown name."""
    if split not in _SEEDS:
        raise ParameterError(
            f"There is no split {split!r}; use one of {', '.join(_SEEDS)}.", "param/split"
        )
    return _SEEDS[split]


def check_seed(seed: int, split: str) -> None:
    """`ParameterError` (param/seed) unless the seed belongs to the split."""
    seeds = split_seeds(split)
    if seed not in seeds:
        raise ParameterError(
            f"Seed {seed} is not in split {split}; use {seeds.start} to {seeds.stop - 1} (see "
            f"split_seeds).",
            "param/seed",
        )


def held_out_colour(colour: str, kind: str) -> bool:
    """True for a coloured shape of `HELD_OUT_COLOURS`."""
    return (colour, kind) in HELD_OUT_COLOURS


def held_out_relation(a: str, relation: str, b: str) -> bool:
    """True when "a <relation> b" says a held-out combination in any wording: "b right of a" means
    "a left of b"."""
    if relation in ("right of", "below"):
        a, b, relation = b, a, {"right of": "left of", "below": "above"}[relation]
    return (a, relation, b) in HELD_OUT_RELATIONS or (
        relation == "next to" and (b, relation, a) in HELD_OUT_RELATIONS
    )


def held_out_items(items: tuple[Item, ...]) -> list[tuple[int, ...]]:
    """Indices of the items that form a held-out combination: (i,) for a coloured shape, (i, j) for
    a relation. Relations count even where they hold only leniently, so the other splits stay clear
    of them."""
    found: list[tuple[int, ...]] = [
        (i,) for i, item in enumerate(items) if held_out_colour(item.colour, item.kind)
    ]
    for i, a in enumerate(items):
        for j, b in enumerate(items):
            if (a.kind, b.kind) in _HELD_OUT_KINDS and any(
                held_out_relation(a.kind, relation, b.kind) and holds(a, relation, b, strict=False)
                for relation in RELATIONS
            ):
                found.append((i, j))
    return found
