"""What brings media onto the stage, and what comes with it."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from app.phrases import NEUTRAL, question_about
from app.state import MediaRef, Texts
from app.tab import Asker
from app.tabs.find import Find
from app.uploads import kept_upload, linked_values
from tests.app.stub import CAPTION
from x2vlm.errors import MediaError, X2VLMError


def test_an_upload_offers_texts_that_suit_it(uploads, picture_file):
    state = uploads.upload("v", str(picture_file), "stub").state
    assert state.results == {}
    assert state.texts.phrases.split("\n") == ["a red car", "a small dog", "the grass"]
    assert state.texts.question == "is there a red car?"
    assert state.texts.text == CAPTION


def test_what_the_model_does_not_stand_by_is_not_offered(
    uploads, picture_file, predictor, monkeypatch
):
    """A phrase that it judges absent, one about which it answers no."""
    caption, answer = predictor.caption, predictor.answer

    def described(*args, **options):
        (first, *_) = caption(*args, **options)
        return (dataclasses.replace(first, text="a red car, a unicorn and a small dog"),)

    def denied(scene, question, **options):
        choices = ["no"] if "small dog" in question else None
        return answer(scene, question, choices=choices)

    monkeypatch.setattr(predictor, "caption", described)
    monkeypatch.setattr(predictor, "answer", denied)
    texts = uploads.upload("v", str(picture_file), "stub").state.texts
    assert (texts.phrases, texts.questions) == ("a red car", ("is there a red car?",))


@pytest.mark.parametrize("match", [0.1, None])
def test_where_the_model_is_sure_of_no_caption_a_neutral_text_is_offered(
    uploads, picture_file, predictor, monkeypatch, match
):
    caption = predictor.caption
    monkeypatch.setattr(
        predictor,
        "caption",
        lambda *args, **options: tuple(
            dataclasses.replace(one, match=match) for one in caption(*args, **options)
        ),
    )
    texts = uploads.upload("v", str(picture_file), "stub").state.texts
    assert texts == Texts(text=NEUTRAL, texts=NEUTRAL)


@pytest.mark.parametrize(
    "phrase, question",
    [
        ("an apple", "is there an apple?"),
        ("two dogs", "are there two dogs?"),
        ("the grass", "can you see the grass?"),
    ],
)
def test_a_phrase_is_asked_about_in_english(phrase, question):
    assert question_about(phrase) == question


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


@pytest.mark.parametrize("content", [b"", b"not an image", b"<svg xmlns='x'/>", b"MZ\x90"])
def test_a_hostile_upload_gets_a_sentence(content, uploads, upload_folder):
    path = upload_folder / "hostile.png"
    path.write_bytes(content)
    with pytest.raises(MediaError) as refusal:
        uploads.upload("v", str(path), "stub")
    assert refusal.value.code.startswith("image/") and str(path) not in refusal.value.message


def test_phone_photos_get_the_boxes_of_their_upright_twin(uploads, runner, phone_photos):
    found = []
    for path in phone_photos.values():
        state = uploads.upload("v", str(path), "stub").state
        assert state.preview.size == (200, 300)
        result = Find().run(Asker(runner, "v", state, "stub"), Find.defaults | {"phrases": "a car"})
        found.append(result.found[0].box_xyxy)
    assert found == found[:1] * 4


def test_frames_of_a_video_are_changed_by_count_or_by_number(uploads, clip_file):
    state = uploads.upload("v", str(clip_file), "stub").state
    assert len(state.preview.indices) == 4
    assert len(uploads.use_frames("v", state, "stub", 2, "").state.preview.indices) == 2
    assert uploads.use_frames("v", state, "stub", 2, "1, 5, 6").state.preview.indices == (1, 5, 6)


@pytest.mark.parametrize("numbers", ["0, 99", "a"])
def test_bad_frame_numbers_are_refused(numbers, uploads, clip_file):
    state = uploads.upload("v", str(clip_file), "stub").state
    with pytest.raises(X2VLMError) as refusal:
        uploads.use_frames("v", state, "stub", 2, numbers)
    assert refusal.value.code == "param/range"


@pytest.mark.parametrize("older", ["image", "not an image", "link"])
def test_an_upload_counts_more_than_what_was_under_way(
    older, uploads, picture_file, clip_file, upload_folder, monkeypatch
):
    """What is older changes nothing any more when it ends, and says nothing either."""
    (upload_folder / "bad.png").write_bytes(b"x")
    begin = {
        "image": lambda: uploads.upload("v", str(picture_file), "stub"),
        "not an image": lambda: uploads.upload("v", str(upload_folder / "bad.png"), "stub"),
        "link": lambda: uploads.arrive("v", {"scene": "12", "kind": "image"}, "stub"),
    }[older]
    newer = []

    def meanwhile(path: str) -> MediaRef:
        monkeypatch.setattr("app.uploads.MediaRef", MediaRef)
        newer.append(uploads.upload("v", str(clip_file), "stub"))
        return MediaRef(path)

    monkeypatch.setattr("app.uploads.MediaRef", meanwhile)
    assert begin() is None
    assert newer[0].state.preview.kind == "video"


def test_an_arrival_stops_the_one_before_and_what_was_asked_meanwhile(
    uploads, runner, picture_file
):
    with runner.jobs.job("v") as asked, runner.jobs.job("another") as elsewhere:
        older = uploads.newest["v"] = threading.Event()
        assert uploads.upload("v", str(picture_file), "stub").state
        assert older.is_set() and asked.is_set() and not elsewhere.is_set()
