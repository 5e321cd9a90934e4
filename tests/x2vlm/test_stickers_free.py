"""People's words in the sticker world: every wording says what the plain one says, training never
sees those kept back, and what is said loosely is true beyond doubt."""

import colorsys
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from x2vlm.results import UNSURE
from x2vlm.stickers import ANSWERS, make_record, make_video_record, sample_scene, split_seeds
from x2vlm.stickers.concepts import (
    ALL_COLOURS,
    FAMILY,
    HYPERNYMS,
    NAMES,
    NUMBERS,
    PLURAL,
    SINGULAR,
    STICKER_COLOURS,
    plural,
)
from x2vlm.stickers.free import LOOSE, free_questions
from x2vlm.stickers.geometry import Item, Look, Scene
from x2vlm.stickers.loose import loose_absent_phrases, loose_captions, loose_regions
from x2vlm.stickers.nonsense import LISTS, nonsense
from x2vlm.stickers.questions import MAKERS
from x2vlm.stickers.sprites import sprite
from x2vlm.stickers.wordings import SYNONYMS, WORDINGS, as_people_type, exchange, reword

HUES = {
    "red": (340, 20),
    "orange": (10, 50),
    "yellow": (30, 75),
    "green": (60, 170),
    "blue": (170, 250),
    "purple": (240, 310),
    "pink": (300, 40),
    "brown": (0, 45),
}

PLACES = (
    "left of|right of|to the|on the|at the|in the|above|over|higher|somewhere|below|under|beneath|"
    "next to|beside|inside|within|in|near"
)


def lies_in(hue: float, low: float, high: float) -> bool:
    return low <= hue <= high if low < high else hue >= low or hue <= high


@pytest.mark.parametrize("kind", [kind for kind, seen in STICKER_COLOURS.items() if seen[0]])
def test_the_colour_of_a_sticker_is_that_of_many_of_its_pixels(kind):
    pixels = np.asarray(sprite(kind)).reshape(-1, 4)
    seen = [colorsys.rgb_to_hsv(*(p[:3] / 255)) for p in pixels[pixels[:, 3] > 200][::5]]
    colour = STICKER_COLOURS[kind][0]
    if colour in HUES:
        of_it = [s > 0.2 and lies_in(360 * h, *HUES[colour]) for h, s, _ in seen]
    else:
        of_it = [s < 0.3 and (v > 0.5 if colour != "black" else v < 0.4) for _, s, v in seen]
    assert np.mean(of_it) > 0.2


def test_every_sticker_has_its_colours():
    assert set(STICKER_COLOURS) == set(NAMES)
    assert {c for seen in STICKER_COLOURS.values() for c in seen} <= {"", *ALL_COLOURS}
    assert {kind for kinds in HYPERNYMS.values() for kind in kinds} <= set(NAMES)


@pytest.mark.parametrize("kept_back", [False, True])
def test_every_plain_question_can_be_reworded(kept_back):
    """Nothing that it names is lost, and no slot stays open."""
    rng, said = random.Random(0), Counter()
    for seed in range(150):
        scene = sample_scene(seed)
        for kind, maker in MAKERS.items():
            if asked := maker(scene, rng):
                text = reword(asked[0], kind, rng, kept_back)
                assert "{" not in text and "None" not in text, text
                said[kind] += 1
        for said_as, maker in LOOSE.values():
            if asked := maker(scene, rng):
                assert "{" not in reword(asked[0], said_as, rng, kept_back)
                said[said_as] += 1
    assert set(said) == set(WORDINGS) - {"appeared", "left", "before", "first"}


def test_wordings_kept_back_are_others_and_about_a_third():
    for kind, wording in WORDINGS.items():
        assert not set(wording.trained) & set(wording.kept_back), kind
        assert all(template.strip() for template in wording.trained + wording.kept_back)
    kept = sum(len(wording.kept_back) for wording in WORDINGS.values())
    trained = sum(len(wording.trained) for wording in WORDINGS.values())
    assert 0.25 < kept / (kept + trained) < 0.45
    for kind, trained in LISTS["trained"].items():
        assert not set(trained) & set(LISTS["kept_back"][kind])


def test_synonyms_kept_back_come_outside_training_alone():
    words, rng = ("huge", "on the left side of", "near the top"), random.Random(1)
    text = "is the large dog left of the cat at the top?"
    trained, kept = (
        {exchange(text, rng, kept_back) for _ in range(300)} for kept_back in (False, True)
    )
    assert not any(re.search(rf"\b{word}\b", said) for said in trained for word in words)
    assert all(any(word in said for said in kept) for word in words)


def test_what_people_type_differs_by_a_letter_at_most():
    rng = random.Random(2)
    typed = Counter(as_people_type("is there a giraffe?", rng) for _ in range(500))
    bare = [re.sub(r"[^a-z ]", "", text.lower()) for text in typed]
    assert "is there a giraffe?" in typed and "IS THERE A GIRAFFE" in typed
    for text in bare:
        (word,) = [w for w in text.split() if w[:1] == "g"] or [""]
        assert word == "" or abs(len(word) - len("giraffe")) <= 1


def noun_of(words: str) -> tuple[str, ...]:
    """Kinds that the last words of a phrase name."""
    for start in range(len(words.split())):
        tail = " ".join(words.split()[start:])
        noun = SINGULAR.get(tail) or PLURAL.get(tail)
        general = next((g for g in HYPERNYMS if tail in (g, plural(g))), None)
        if noun or general:
            return HYPERNYMS.get(general or noun, (noun or general,))
    return ()


def meant(phrase: str, items: tuple[Item, ...]) -> list[Item]:
    """Items that a loose phrase without place or relation may mean, read word by word."""
    words = set(phrase.split())
    colours = words & set(ALL_COLOURS)
    size = next((s for s in ("small", "large") if words & set(SYNONYMS[s])), "")
    kinds = noun_of(phrase)
    return [
        i
        for i in items
        if (not kinds or i.kind in kinds or FAMILY[i.kind] in kinds)
        and colours <= {i.colour, *STICKER_COLOURS.get(i.kind, ())}
        and size in ("", i.size)
    ]


def test_loose_phrases_name_what_their_box_surrounds_and_absent_ones_nothing():
    seen = 0
    for seed in range(200):
        scene, rng = sample_scene(seed), random.Random(seed)
        for text, box in loose_regions(scene, rng):
            text = text.replace("gray", "grey")
            head, *rest = re.split(rf" (?:{PLACES}) ", text)
            found = meant(head, scene.items)
            inside = [
                i
                for i in found
                if abs(i.box[0] - box[0]) < box[2] / 2 and abs(i.box[1] - box[1]) < box[3] / 2
            ]
            assert inside, (text, scene)
            if not rest:
                seen += 1
                assert found == inside, (text, scene)
        for text in loose_absent_phrases(scene, rng)[:3]:
            assert not meant(text.replace("gray", "grey"), scene.items), (text, scene)
        for text in loose_captions(scene, rng)[:1]:
            for part in re.split(", | and ", text.replace("gray", "grey")):
                assert meant(part, scene.items), (text, scene)
    assert seen > 100


def scene_of(*items: Item) -> Scene:
    return Scene("grass", items, Look(0, 0.0, 0.0, 1.0, 0))


FLAMINGO = Item("flamingo", "", "large", (0.25, 0.3, 0.3, 0.4), 0, False)
DOG = Item("dog", "", "small", (0.8, 0.75, 0.2, 0.25), 0, False)
STAR = Item("star", "red", "small", (0.8, 0.2, 0.25, 0.25), 0, False)


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("colour of stickers", {"pink", "red"}),
        ("compare", {"flamingo", "dog", "star"}),
        ("extreme", {"flamingo", "dog"}),
        ("kind loosely", {"flamingo", "dog", "star"}),
        ("what loosely", {"flamingo", "dog", "star"}),
    ],
)
def test_loose_questions_about_a_known_scene(kind, answers):
    rng, scene = random.Random(0), scene_of(FLAMINGO, DOG, STAR)
    found = defaultdict(set)
    for _ in range(300):
        if asked := LOOSE[kind][1](scene, rng):
            found[asked[1]].add(asked[0])
    assert set(found) <= answers and found
    if kind == "compare":
        assert "which is bigger, the flamingo or the dog?" in found["flamingo"]
        assert any("which is higher, the dog or" in question for question in found["star"])
    if kind == "extreme":
        assert found["dog"] == {"what is the lowest thing?"}
        assert {"what is the largest thing?", "what is the leftmost thing?"} == found["flamingo"]
    if kind == "kind loosely":
        assert "which bird is there?" in found["flamingo"]


def test_no_is_the_opposite_of_is_there():
    rng, scene = random.Random(0), scene_of(FLAMINGO, DOG)
    for maker, there in (("none", "no"), ("exists loosely", "yes")):
        for _ in range(100):
            question, answer = LOOSE[maker][1](scene, rng)
            here = bool(meant(question.strip("?"), scene.items))
            assert (answer == there) == here, question


def test_free_answers_are_closed_and_balanced():
    answers = defaultdict(Counter)
    for seed in range(700):
        scene = sample_scene(seed)
        for question in free_questions(scene, random.Random(seed)):
            answers[question["kind"]][question["answer"]] += 1
            assert question["answer"] in ANSWERS
    assert 0.05 < answers[UNSURE].total() / sum(map(Counter.total, answers.values())) < 0.2
    for kind, counts in answers.items():
        if "yes" in counts:
            assert 0.36 < counts["yes"] / counts.total() < 0.64, (kind, counts)
    assert set(NUMBERS[:5]) <= set(answers["count loosely"])


def test_nonsense_is_no_question_of_the_world():
    rng = random.Random(0)
    plain = [re.compile(w.pattern) for k, w in WORDINGS.items() if k not in ("what", "shape")]
    for kept_back in (False, True):
        for _ in range(300):
            text = nonsense("the dog", rng, kept_back)
            assert text and not any(pattern.fullmatch(text) for pattern in plain), text


def test_records_hold_free_texts_in_words_that_suit_their_split():
    train, test = (make_record(split_seeds(s)[5], s, 24) for s in ("train", "test"))
    for record in (train, test):
        for key in ("free_captions", "free_regions", "free_absent", "free_questions"):
            assert record[key], key


def test_order_questions_are_answered_by_when_things_are_shown():
    seen = Counter()
    for seed in range(120):
        record = make_video_record(seed, "train", 16)
        video = record["video"]
        for asked in record["order_questions"]:
            seen[asked["kind"]] += 1
            tracks = [t for t in video.tracks if t.item.kind == asked["answer"]]
            if asked["kind"] == "appeared":
                assert any(t.start > 0 for t in tracks)
            elif asked["kind"] in ("left", "first"):
                assert any(t.start == 0 and t.stop < video.frames for t in tracks)
            else:
                assert asked["answer"] in ("yes", "no")
    assert set(seen) == {"appeared", "left", "first", "before"} and seen["left"] > 10
