"""What brings media onto the stage, and what comes with it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from app.uploads import kept_upload, linked_values
from x2vlm.errors import MediaError


def test_an_upload_offers_texts_that_suit_it(uploads, picture_file):
    state = uploads.upload("v", str(picture_file), "stub").state
    assert state.results == {}
    assert state.texts.phrases.split("\n") == ["a red car", "a small dog", "the grass"]
    assert state.texts.question == "is there a red car?"


def test_an_emptied_uploader_empties_the_stage(uploads):
    assert uploads.clear("v", "stub").state is None


def test_a_stored_example_asks_the_model_nothing(uploads, predictor):
    state = uploads.example("v", "scene", "stub").state
    assert {"find", "describe", "ask", "inspect", "match"} <= set(state.results)
    assert predictor.calls == ["encode"]


def test_an_example_under_other_weights_is_asked_anew(uploads, predictor, monkeypatch):
    monkeypatch.setattr(predictor.info, "hash", "ffffffffffff")
    state = uploads.example("v", "scene", "stub").state
    assert "ground" in predictor.calls
    assert state.results["find"].settings["hash"] == "ffffffffffff"


@pytest.mark.parametrize("weights", [None, "ffffffffffff"])
def test_the_first_paint_shows_stored_results_under_their_own_weights_alone(examples, weights):
    assert examples["scene"].on_stage(weights).results == {}
    assert examples["scene"].on_stage("0123456789ab").results


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_new_scene_answers_every_tab_and_tells_the_truth(kind, uploads):
    arrival = uploads.new_scene("v", kind, "stub")
    assert {"find", "describe", "ask", "inspect", "match"} <= set(arrival.state.results)
    assert "<table" in arrival.truth
    for question in arrival.state.texts.questions:
        assert question not in arrival.truth


def test_a_new_scene_goes_to_the_model_of_its_world(uploads, monkeypatch):
    monkeypatch.setattr(uploads.runner.models, "names", ("stub", "mini"))
    assert uploads.new_scene("v", "image", "stub").model == "mini"


@pytest.mark.parametrize("notes, model", [(("Odd. [scene/domain]",), "stub"), ((), "mini")])
def test_a_photo_uploaded_to_the_sticker_model_goes_to_the_default(
    notes, model, uploads, picture_file, monkeypatch
):
    monkeypatch.setattr(uploads.runner.models, "names", ("stub", "mini"))
    preview = uploads.runner.preview
    monkeypatch.setattr(
        uploads.runner, "preview", lambda *asked: dataclasses.replace(preview(*asked), notes=notes)
    )
    assert uploads.upload("v", str(picture_file), "mini").model == model


def test_a_link_reopens_texts_and_result(uploads):
    wish = {"example": "scene", "tab": "find"}
    wish["fields"] = json.dumps({"find": {"phrases": "a zebra"}})
    arrival = uploads.arrive("v", wish, "stub")
    assert arrival.values == {"find": {"phrases": "a zebra"}}
    assert arrival.state.results["find"].found[0].phrase == "a zebra"


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"find": 1}', "[" * 9999])
def test_a_broken_link_brings_no_values(text):
    assert linked_values(text) == {}


@pytest.mark.parametrize("folder", ["../../etc", "0" * 64, "scene", ""])
def test_a_link_opens_nothing_but_kept_uploads(folder):
    with pytest.raises(MediaError):
        kept_upload(folder)
