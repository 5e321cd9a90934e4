"""What the page offers with every bundled example is right, with the real bundled models."""

from __future__ import annotations

import functools
import json
import shutil
from typing import Any

import pytest

from app.examples import FOLDER, load_examples, rebuild
from app.measures import ranked
from app.phrases import NEUTRAL
from app.service.models import Models
from app.service.runner import Runner
from app.state import Texts
from app.tabs import TABS
from app.uploads import Uploads
from x2vlm.hub import BUNDLED

STORED = load_examples([tab() for tab in TABS])
each = pytest.mark.parametrize("name", STORED)


@functools.cache
def predictor(model: str):
    pytest.importorskip("torch")
    from x2vlm.inference.predictor import Predictor

    return Predictor.from_pretrained(model)


@functools.cache
def scene(name: str):
    example = STORED[name]
    return predictor(example.model).encode(str(example.path))


def test_the_first_example_is_the_default_models_photo():
    first = next(iter(STORED.values()))
    assert (first.model, first.kind) == (BUNDLED[0], "image")


def test_there_are_photos_a_video_and_a_sticker_scene():
    kinds = [(example.model, example.kind) for example in STORED.values()]
    assert kinds.count(("photo", "image")) >= 2
    assert ("mini", "video") in kinds and ("mini", "image") in kinds


@each
def test_stored_results_are_of_the_present_weights(name):
    """Where this fails, run `python -m app.examples`."""
    example = STORED[name]
    assert example.hash == predictor(example.model).info.hash


def assert_close(found: Any, stored: Any, where: str) -> None:
    """The same JSON value, numbers to a thousandth: other processors round otherwise."""
    if isinstance(stored, dict):
        assert found.keys() == stored.keys(), where
        for key, value in stored.items():
            assert_close(found[key], value, f"{where}/{key}")
    elif isinstance(stored, list):
        assert len(found) == len(stored), where
        for k, value in enumerate(stored):
            assert_close(found[k], value, f"{where}/{k}")
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, rel=2e-3, abs=2e-3), where
    else:
        assert found == stored, where


@each
def test_stored_results_are_what_the_model_says_now(name, tmp_path):
    for file in FOLDER.glob(f"{name}.*"):
        shutil.copy(file, tmp_path)
    rebuild(predictor, [tab() for tab in TABS], tmp_path)
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert_close(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")), stored, name)


@each
def test_an_example_lies_inside_its_models_world(name):
    assert scene(name).notes == ()


@each
def test_every_question_is_answered_right(name):
    example = STORED[name]
    questions = {example.texts.question, *example.texts.questions}
    told = {q: predictor(example.model).answer(scene(name), q).best for q in questions}
    assert told == {q: example.truth["answers"][q] for q in questions}


@each
def test_every_phrase_is_judged_right(name):
    example = STORED[name]
    told = {found.phrase: found.verdict for found in example.results["find"].found}
    absent = example.truth["absent"]
    phrases = example.texts.phrases.split("\n")
    assert told == {p: "absent" if p in absent else "found" for p in phrases}


@each
def test_a_true_text_fits_best_and_is_explained(name):
    example = STORED[name]
    best = ranked(example.results["match"].found)[0].text
    assert {best, example.texts.text} <= set(example.truth["captions"])


@each
def test_everything_that_can_be_chosen_has_a_stored_map(name):
    for tab in ("find", "describe", "ask", "inspect"):
        layers = STORED[name].results[tab].layers
        assert layers and all(len(layer.explanation.maps) for layer in layers)


def offered(model: str, path: str) -> Texts:
    """What the page offers for an upload, without its queue."""
    runner = Runner(Models(predictor, (model,)), workers=1, threads=1)
    arrival = Uploads(runner, {}, ()).upload("visitor", path, model)
    return arrival.state.texts


@each
def test_what_is_offered_for_an_upload_is_what_the_model_stands_by(name):
    """The example as if a visitor had brought it."""
    example, model = STORED[name], predictor(STORED[name].model)
    texts = offered(example.model, str(example.path))
    phrases = [phrase for phrase in texts.phrases.split("\n") if phrase]
    assert {found.verdict for found in model.ground(scene(name), phrases or ["a"])} == {"found"}
    assert {model.answer(scene(name), one).best for one in texts.questions} == {"yes"}
    assert all(text == NEUTRAL or phrases[0] in text for text in texts.texts.split("\n")[:1])


PERSON = ("man", "woman", "boy", "girl", "player", "people", "child", "skateboarder")
NAMED = dict.fromkeys(PERSON, "person") | {"table": "dining table", "bike": "bicycle"}
PHOTOS = 8


def test_things_offered_for_photos_are_mostly_there(shared_dir):
    """By what is annotated in COCO."""
    folder = shared_dir / "data" / "coco_mini"
    photos = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    known = {thing["category"] for photo in photos for thing in photo["objects"]}
    right = []
    for photo in [photo for photo in photos if photo["objects"]][:PHOTOS]:
        there = {thing["category"] for thing in photo["objects"]}
        phrases = offered("photo", str(folder / photo["file"])).phrases.split("\n")
        nouns = [phrase.split(" ")[-1] for phrase in phrases]
        named = {NAMED.get(noun, noun) for noun in nouns} & known
        right += [name in there for name in named]
    assert len(right) >= 3 and sum(right) >= 2 * right.count(False)
