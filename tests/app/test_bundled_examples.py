"""What the page offers with every bundled example is right, with the real bundled models."""

from __future__ import annotations

import functools

import pytest

from app.examples import load_examples
from app.measures import ranked
from app.tabs import TABS
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
