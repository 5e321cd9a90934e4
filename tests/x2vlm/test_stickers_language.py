"""Every text of the sticker world is true of its scene: checked with words and boxes alone, not
with the package's own grammar; and the caption checker accepts what is true and refuses what is
not."""

import random
import re

import pytest

from x2vlm.stickers import (
    check_caption,
    make_order_record,
    make_pair_record,
    make_record,
    make_video_record,
    split_seeds,
)
from x2vlm.stickers.concepts import (
    BACKGROUNDS,
    COLOURS,
    FAMILY,
    NUMBERS,
    PLURAL,
    POSITIONS,
    SINGULAR,
)
from x2vlm.stickers.geometry import Item, Look, Scene, holds, positions

RELATION = re.compile(r"^(.*?) (left of|right of|above|below|next to|inside) (.*)$")
PLACE = re.compile(rf"^(.*) ({'|'.join(sorted(POSITIONS.values(), key=len, reverse=True))})$")
COUNTED = {**{word: n for n, word in enumerate(NUMBERS)}, "a": 1, "an": 1, "the": 1}


def records(count: int, split: str = "test") -> list[dict]:
    return [make_record(seed, split, 24) for seed in split_seeds(split)[:count]]


def find(phrase: str, items: tuple[Item, ...]) -> tuple[list[Item], int]:
    """Items that a plain noun phrase fits, and the number it says (1 without a number)."""
    words = phrase.split()
    count = 1
    while words[0] in COUNTED:
        count = COUNTED[words.pop(0)]
    extreme = words.pop(0) if words[0] in ("leftmost", "rightmost", "highest", "lowest") else ""
    sizes = [words.pop(0)] if words[0] in ("small", "large") else []
    colours = [words.pop(0)] if words[0] in COLOURS else []
    kind = (SINGULAR if count == 1 else PLURAL)[" ".join(words)]
    found = [i for i in items if kind in (i.kind, FAMILY[i.kind])]
    found = [i for i in found if {*sizes, *colours} <= {i.size, i.colour}]
    if extreme:
        key = {"leftmost": 0, "rightmost": 0, "highest": 1, "lowest": 1}[extreme]
        found.sort(key=lambda i: i.box[key], reverse=extreme in ("rightmost", "lowest"))
        assert len(found) > 1 and abs(found[0].box[key] - found[1].box[key]) > 0.05
        found = found[:1]
    return found, count


def stands(a: Item, relation: str, b: Item) -> bool:
    """A plain reading of the relations, between strict and lenient."""
    dx, dy = b.box[0] - a.box[0], b.box[1] - a.box[1]
    gaps = [abs(d) - (a.box[k] + b.box[k]) / 2 for d, k in ((dx, 2), (dy, 3))]
    if relation == "inside":
        return max(gaps) < 0 and a.box[2] < b.box[2] and a.box[3] < b.box[3]
    if max(gaps) < 0:
        return False
    if relation == "next to":
        return max(gaps) < 0.07
    side = {"left of": dx > abs(dy), "right of": -dx > abs(dy)}
    return {**side, "above": dy > abs(dx), "below": -dy > abs(dx)}[relation]


def located(item: Item, phrase: str) -> bool:
    x, y = item.box[:2]
    return (
        ("left" not in phrase or x < 0.38)
        and ("right" not in phrase or x > 0.62)
        and ("top" not in phrase or y < 0.38)
        and ("bottom" not in phrase or y > 0.62)
        and ("centre" not in phrase or (0.285 < x < 0.715 and 0.285 < y < 0.715))
    )


def referents(phrase: str, items: tuple[Item, ...]) -> tuple[list[Item], int]:
    """Items that a whole phrase refers to, with relation or place."""
    if match := RELATION.match(phrase):
        heads, count = find(match[1], items)
        anchors, _ = find(match[3], items)
        return [
            a for a in heads if any(a is not b and stands(a, match[2], b) for b in anchors)
        ], count
    if match := PLACE.match(phrase):
        heads, count = find(match[1], items)
        return [a for a in heads if located(a, match[2])], count
    return find(phrase, items)


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_region_phrases_refer_to_exactly_what_their_box_surrounds(split):
    kinds = set()
    for record in records(250, split):
        for region in record["regions"]:
            found, count = referents(region["text"], record["scene"].items)
            assert len(found) == count, (region, record["scene"])
            edges = [(i.box[0] - i.box[2] / 2, i.box[1] - i.box[3] / 2) for i in found]
            ends = [(i.box[0] + i.box[2] / 2, i.box[1] + i.box[3] / 2) for i in found]
            (x0, y0), (x1, y1) = map(min, zip(*edges)), map(max, zip(*ends))
            assert region["box"] == pytest.approx(
                [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], abs=2e-5
            )
            kinds.add(
                "relation" if RELATION.match(region["text"]) else "group" if count > 1 else "single"
            )
    assert kinds >= {"relation", "single"}


def test_absent_phrases_refer_to_nothing():
    for record in records(250):
        assert len(record["absent"]) >= 3
        for phrase in record["absent"]:
            found, count = referents(phrase, record["scene"].items)
            assert len(found) < count, (phrase, record["scene"])


def true_caption(text: str, scene: Scene) -> bool:
    """Independent of the checker: words and boxes."""
    for intro in ("a picture of ", "there is ", "there are "):
        text = text.removeprefix(intro)
    for name, phrase in BACKGROUNDS.items():
        if text.endswith(" " + phrase):
            text = text.removesuffix(" " + phrase)
            if scene.background != name:
                return False
    for clause in re.split(r", and |, | and ", text):
        found, count = referents(clause, scene.items)
        if len(found) != count:
            return False
    return True


def test_captions_are_true_short_and_accepted_by_the_checker():
    styles = set()
    for record in records(300):
        for caption in record["captions"]:
            assert caption == caption.lower() and len(caption.split()) <= 24
            assert true_caption(caption, record["scene"]), (caption, record["scene"])
            check = check_caption(record["scene"], caption)
            assert check.parsed and check.true, (caption, check)
            styles |= {claim.kind for claim in check.claims}
    assert styles == {"count", "relation", "position", "background"}


def test_video_captions_are_accepted_by_the_checker():
    for seed in split_seeds("test")[:40]:
        record = make_video_record(seed, "test", 16)
        assert all(
            check_caption(record["video"].summary, caption).true for caption in record["captions"]
        )


SWAPS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def corruptions(caption: str, scene: Scene, rng: random.Random) -> list[str]:
    """The caption with a relation turned round, a number, a noun, a colour, a size or the
    background made wrong."""
    words = caption.split()
    present = {item.kind for item in scene.items}
    absent = rng.choice([n for n in ("zebra", "guitar", "volcano", "tractor") if n not in present])
    broken = [
        re.sub(rf"\b{old}\b", new, caption)
        for old, new in SWAPS.items()
        if re.search(rf"\b{old}\b", caption)
    ]
    broken += [
        re.sub(rf"\b{word}\b", "six" if word != "six" else "five", caption, count=1)
        for word in words
        if word in NUMBERS
    ]
    for item in scene.items:
        if f"a {item.kind}" in caption:
            broken.append(caption.replace(f"a {item.kind}", f"a {absent}", 1))
        if item.colour and f"{item.colour} {item.kind}" in caption:
            used = {i.colour for i in scene.items}
            other = next(colour for colour in COLOURS if colour not in used)
            broken.append(caption.replace(f"{item.colour} {item.kind}", f"{other} {item.kind}"))
    for name, phrase in BACKGROUNDS.items():
        if phrase in caption and name == scene.background:
            broken.append(caption.replace(phrase, "at night" if name != "night" else "on grass"))
    return [text for text in broken if text != caption]


def test_the_checker_refuses_corrupted_captions():
    rng, count = random.Random(0), 0
    for record in records(300):
        for caption in record["captions"]:
            for text in corruptions(caption, record["scene"], rng):
                check = check_caption(record["scene"], text)
                assert check.parsed and not check.true, (text, record["scene"])
                count += 1
    assert count > 500


def small_scene() -> Scene:
    items = (
        Item("dog", "", "small", (0.2, 0.5, 0.17, 0.17), 0, False),
        Item("circle", "red", "large", (0.7, 0.5, 0.4, 0.4), 0, False),
        Item("cat", "", "small", (0.7, 0.5, 0.16, 0.16), 0, False),
    )
    return Scene("grass", items, Look(0, 0.0, 0.0, 1.0, 0))


@pytest.mark.parametrize(
    ("text", "parsed", "true"),
    [
        ("a dog left of a red circle", True, True),
        ("A small dog , and a cat inside a large red circle on grass.", True, True),
        ("there is a puppy, a kitten and a circle", True, True),
        ("two animals on grass", True, True),
        ("a dog on the left and a cat on the right", True, True),
        ("a dog left of two cats", True, False),
        ("a cat left of a dog", True, False),
        ("a cat above a red circle", True, False),
        ("a dog and a small dog", True, False),
        ("a dog and a dog", True, False),
        ("a large dog", True, False),
        ("a blue circle", True, False),
        ("a dog at night", True, False),
        ("", False, False),
        ("dog", False, False),
        ("a dog a cat", False, False),
        ("a dog left of", False, False),
        ("a dog dreams of a cat", False, False),
        ("two dog", False, False),
    ],
)
def test_checker_verdicts(text, parsed, true):
    check = check_caption(small_scene(), text)
    assert (check.parsed, check.true) == (parsed, true), check


def test_what_holds_strictly_holds_leniently():
    for record in records(60):
        items = record["scene"].items
        for a in items:
            assert set(positions(a, strict=True)) <= set(positions(a, strict=False))
            for b in items:
                for relation in ("left of", "right of", "above", "below", "next to", "inside"):
                    assert not holds(a, relation, b, strict=True) or holds(
                        a, relation, b, strict=False
                    )
                    assert (
                        a is b or not holds(a, relation, b, strict=True) or stands(a, relation, b)
                    )


def answer(question: str, scene: Scene) -> str | None:
    """The answer found with words and boxes; None for question kinds that need no such check."""
    text = question.rstrip("?")
    items = scene.items
    if match := re.match(r"^is there (an? .*)$", text):
        return "yes" if find(match[1], items)[0] else "no"
    if match := re.match(r"^(?:is|are) there exactly (.*)$", text):
        found, count = find(match[1], items)
        return "yes" if len(found) == count else "no"
    if match := re.match(r"^how many (.*) are there$", text):
        if "kinds" in match[1]:
            return NUMBERS[len({item.kind for item in items})]
        return NUMBERS[len(find(f"two {match[1]}", items)[0])]
    if match := re.match(r"^what colour is (.*)$", text):
        (item,) = find(match[1], items)[0]
        return item.colour
    if match := re.match(
        r"^what (left of|right of|above|below|next to|inside) (.*)$",
        text.replace("what is", "what"),
    ):
        (anchor,) = find(match[2], items)[0]
        (item,) = [i for i in items if i is not anchor and holds(i, match[1], anchor, strict=True)]
        return item.kind
    if match := re.match(
        r"^is (the .*?) (left of|right of|above|below|next to|inside) (the .*)$", text
    ):
        (a,), (b,) = find(match[1], items)[0], find(match[3], items)[0]
        return "yes" if holds(a, match[2], b, strict=True) else "no"
    if match := re.match(r"^where is (.*)$", text):
        (item,) = find(match[1], items)[0]
        return next(
            cell
            for cell, phrase in POSITIONS.items()
            if located(item, phrase) and cell in positions(item, True)
        )
    if match := re.match(r"^are there more (.*) than (.*)$", text):
        more, fewer = (len(find(f"two {plural}", items)[0]) for plural in match.groups())
        return "yes" if more > fewer else "no"
    return None


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_answers_are_right(split):
    checked = 0
    for record in records(250, split):
        for question in record["questions"]:
            expected = answer(question["question"], record["scene"])
            checked += expected is not None
            assert expected in (None, question["answer"]), (question, record["scene"])
    assert checked > 800


def test_word_order_captions_are_the_same_words_and_true_of_their_own_scene_alone():
    for seed in split_seeds("test")[:80]:
        record = make_order_record(seed, "test", 16)
        first, second = record["captions"]
        assert first != second and sorted(re.findall(r"\w+", first)) == sorted(
            re.findall(r"\w+", second)
        )
        verdicts = [
            [true_caption(caption, scene) for caption in (first, second)]
            for scene in record["scenes"]
        ]
        assert verdicts == [[True, False], [False, True]], record["captions"]


def test_statements_about_two_images_have_the_right_label():
    for seed in split_seeds("test")[:150]:
        record = make_pair_record(seed, "test", 16)
        left, right = (scene.items for scene in record["scenes"])
        text = record["statement"]
        here = {"left": left, "right": right}
        if match := re.match(r"^the (left|right) picture shows exactly (.*)$", text):
            found, count = find(match[2], here[match[1]])
            true = len(found) == count
        elif match := re.match(
            r"^(both|only one of the|neither of the) (?:pictures )?shows? (an? .*)$", text
        ):
            sides = [bool(find(match[2], items)[0]) for items in (left, right)]
            true = sum(sides) == {"both": 2, "only one of the": 1, "neither of the": 0}[match[1]]
        elif match := re.match(r"^there are exactly (.*) in the two pictures$", text):
            found, count = find(match[1], left + right)
            true = len(found) == count
        elif match := re.match(r"^the (left|right) picture has more (.*) than the", text):
            one, other = (len(find(f"two {match[2]}", items)[0]) for items in (left, right))
            true = one > other if match[1] == "left" else other > one
        else:
            name = next(name for name, phrase in BACKGROUNDS.items() if text.endswith(phrase))
            shown = {"left": record["scenes"][:1], "right": record["scenes"][1:]}
            true = all(
                scene.background == name for scene in shown.get(text.split()[1], record["scenes"])
            )
        assert true == record["label"], record


def test_false_captions_are_wrong_in_one_thing():
    """Pictures and videos: each parses, is false, and beside it the claims that are not about the
    altered thing hold."""
    wrong = set()
    for seed in split_seeds("test")[:150]:
        for scene, texts in (
            (record["scene"], record["false_captions"])
            if "scene" in record
            else (record["video"].summary, record["false_captions"])
            for record in (make_record(seed, "test", 24), make_video_record(seed, "test", 24))
        ):
            for text in texts:
                check = check_caption(scene, text)
                assert check.parsed and not check.true, text
                false = {claim.text: claim.kind for claim in check.claims if not claim.true}
                assert len(false) == 1, text
                wrong |= set(false.values())
    assert {"count", "background"} <= wrong
