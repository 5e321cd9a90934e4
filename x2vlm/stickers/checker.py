"""Check any caption of our grammar against a scene: parse it into claims and verify each."""

import re
from dataclasses import dataclass
from itertools import product

from x2vlm.stickers.concepts import (
    BACKGROUNDS,
    COLOURS,
    NUMBERS,
    PLURAL,
    POSITIONS,
    SINGULAR,
    SIZES,
)
from x2vlm.stickers.geometry import RELATIONS, Item, Scene, holds, positions
from x2vlm.stickers.language import INTROS, Description

_RELATION = re.compile(rf"^(.+?) ({'|'.join(RELATIONS)}) (.+)$")
_POSITION = re.compile(rf"^(.+?) ({'|'.join(sorted(POSITIONS.values(), key=len, reverse=True))})$")
_CELL = {phrase: cell for cell, phrase in POSITIONS.items()}
_BACKGROUND = {phrase: name for name, phrase in BACKGROUNDS.items()}


@dataclass(frozen=True)
class Claim:
    """One thing a caption says; `kind` is count, relation, position, background or repetition."""

    text: str
    kind: str
    true: bool


@dataclass(frozen=True)
class ClaimCheck:
    """`parsed`: the text is of our grammar. `true`: it is, and every claim holds."""

    parsed: bool
    true: bool
    claims: tuple[Claim, ...]


def parse_noun_phrase(text: str) -> Description | None:
    """ "two small red stars" -> Description; None when it is no noun phrase with "a" or a
    number."""
    first, _, rest = text.partition(" ")
    size, _, tail = rest.partition(" ")
    size, rest = (size, tail) if size in SIZES else ("", rest)
    colour, _, tail = rest.partition(" ")
    colour, noun = (colour, tail) if colour in COLOURS and tail else ("", rest)
    if first in ("a", "an") and noun in SINGULAR:
        return Description(SINGULAR[noun], colour, size)
    if first in NUMBERS[2:] and noun in PLURAL:
        return Description(PLURAL[noun], colour, size, NUMBERS.index(first))
    return None


def _check_relation(
    first: Description, relation: str, second: Description, items: tuple[Item, ...]
) -> bool:
    """Each side that counts must count all that fit and hold for all of them; a single side needs
    one that stands so."""
    sides = []
    for description in (first, second):
        fitting = description.select(items)
        if description.count == 1:
            sides.append([[item] for item in fitting])
        else:
            sides.append([fitting] if len(fitting) == description.count else [])
    return any(
        all(holds(a, relation, b, strict=False) for a, b in product(us, them))
        for us, them in product(*sides)
    )


def _check_clause(clause: str, items: tuple[Item, ...]) -> Claim | None:
    if match := _RELATION.match(clause):
        first, second = parse_noun_phrase(match[1]), parse_noun_phrase(match[3])
        if first and second:
            return Claim(clause, "relation", _check_relation(first, match[2], second, items))
        return None
    if match := _POSITION.match(clause):
        description = parse_noun_phrase(match[1])
        if description is None:
            return None
        there = [
            x for x in description.select(items) if _CELL[match[2]] in positions(x, strict=False)
        ]
        fitting = description.select(items)
        right = (
            bool(there)
            if description.count == 1
            else len(there) == len(fitting) == description.count
        )
        return Claim(clause, "position", right)
    description = parse_noun_phrase(clause)
    if description is None:
        return None
    return Claim(clause, "count", len(description.select(items)) == description.count)


def check_caption(scene: Scene, text: str) -> ClaimCheck:
    """Parse a caption of the grammar in `language` and verify every claim.

    A noun phrase alone claims that exactly so many items fit it. Relations and positions need to
    hold leniently (`geometry.holds`, `geometry.positions`), a little wider than what generated
    captions assert; with "a", one fitting item in the right place is enough, with a number exactly
    so many must fit and all stand right. Items named twice in a list ("a dog and a small dog" for
    one dog) make a false claim of kind repetition.
    """
    words = " ".join(text.lower().strip().rstrip(".").split())
    words = re.sub(r"\s+,", ",", words)
    claims: list[Claim] = []
    body = words.removeprefix(next(intro for intro in reversed(INTROS) if words.startswith(intro)))
    for phrase, name in _BACKGROUND.items():
        if body.endswith(f" {phrase}"):
            body = body.removesuffix(f" {phrase}")
            claims.append(Claim(phrase, "background", scene.background == name))
            break
    seen: list[Item] = []
    clauses = re.split(r", and |, | and ", body)
    for clause in clauses:
        claim = _check_clause(clause, scene.items)
        if claim is None:
            return ClaimCheck(False, False, tuple(claims))
        claims.append(claim)
        if claim.kind == "count":
            members = parse_noun_phrase(clause).select(scene.items)
            if any(item is other for item in members for other in seen):
                claims.append(Claim(clause, "repetition", False))
            seen += members
    if len(set(clauses)) < len(clauses):
        claims.append(Claim(body, "repetition", False))
    return ClaimCheck(True, all(claim.true for claim in claims), tuple(claims))
