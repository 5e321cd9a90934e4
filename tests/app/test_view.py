"""What the stage shows and what is handed out: drawn from kept results, never with the model."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app import cards, export, panels, viewing
from app.arrivals import stored_shown
from app.curve import curve
from app.view import Look, canvas_value, draw, present, words
from tests.app.stub import CAPTION
from x2vlm.results import Answer, Answers, Grounding

NO_REGION = (None, None, None, None)
CONTROLS = ("beam", 3, 1, 0, 30, 0.9, 1.0, 0, "")


@pytest.fixture
def found(handlers, visitor, shown, look):
    """Two phrases found on the image."""
    return handlers.find(
        visitor, shown, look, "stub", "a red car\na unicorn", 0.3, 0.7, *NO_REGION
    )[1]


def pixels_of(value: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(value["src"].split(",")[1]))))


def select(index, value="") -> SimpleNamespace:
    return SimpleNamespace(index=index, value=value)


def test_view_changes_never_call_the_model(found, look, predictor):
    asked = len(predictor.calls)
    first = pixels_of(canvas_value(found, look))
    word = viewing.choose_word(found, look, select(2))
    assert word[0].word == 1 and not np.array_equal(pixels_of(word[1]), first)
    assert viewing.choose_word(word[0], look, select(0))[0].word is None
    assert viewing.choose_layer(found, look, 1)[0].layer == 1
    for controls in (
        (["heat"], 0.5, 0, "viridis", True),
        (["box"], 0.5, 0.2, "magma", False),
        ([], 0, 0, "gray", True),
    ):
        changed, value, _ = viewing.change_look(found, *controls)
        assert isinstance(changed, Look) and value["src"] != ""
    assert len(predictor.calls) == asked


def test_opacity_zero_and_nothing_shown_give_the_picture_itself(found):
    plain = np.asarray(found.seen.frames[0])
    assert np.array_equal(np.asarray(draw(found, Look(show=()))), plain)
    assert np.array_equal(np.asarray(draw(found, Look(show=("heat",), opacity=0))), plain)


def test_canvas_is_lossless_and_says_its_size(found, look):
    value = canvas_value(found, look)
    assert np.array_equal(pixels_of(value), np.asarray(draw(found, look)))
    assert value["size"] == [300, 200]


@pytest.mark.parametrize("event", [select(99), select(-5)])
def test_a_choice_that_does_not_exist_changes_nothing(event, found, look):
    for choose in (viewing.choose_word, viewing.choose_frame):
        if event.index > 0:
            assert all(isinstance(value, dict) for value in choose(found, look, event))
    assert all(isinstance(value, dict) for value in viewing.choose_layer(found, look, 99))
    assert all(isinstance(value, dict) for value in viewing.choose_word(None, look, event))
    assert all(isinstance(value, dict) for value in viewing.choose_layer(found, look, found.layer))


def test_a_map_is_painted_on_its_own_frame_alone(handlers, visitor, clip_shown, look):
    """Box, heat and words of one frame of a video say nothing of another; to choose a part of them
    is to go back there."""
    found = handlers.find(visitor, clip_shown, look, "stub", "a dog\na car", 0.3, 0.7, *NO_REGION)[
        1
    ]
    assert found.heat is not None and "hottest" in cards.caption(found, look)
    moved, canvas, caption = viewing.choose_frame(found, look, select(2))
    assert moved.heat is None and np.array_equal(
        pixels_of(canvas), np.asarray(clip_shown.seen.frames[2])
    )
    for told in (cards.plain(caption), canvas["alt"]):
        assert "a dog" not in told and "hottest" not in told and "160 × 120" in told
    for chosen in (
        viewing.choose_word(moved, look, select(1)),
        viewing.choose_layer(moved, look, 1),
    ):
        assert chosen[0].frame == 0 and chosen[0].heat is not None and "hottest" in chosen[2]


def test_flat_map_is_said_and_not_stretched(handlers, visitor, shown, look):
    kept = handlers.inspect(
        visitor, shown, look, "stub", "a flat thing", "match", "default", "default", "gradient"
    )[2]
    assert kept.flat
    assert np.array_equal(np.asarray(draw(kept, look)), np.asarray(kept.seen.frames[0]))
    assert "no place stands out" in cards.caption(kept, look)
    assert "ramp" not in cards.caption(kept, look)


def test_words_carry_their_share_and_an_entry_for_all(found):
    strip = words(found)
    assert strip[0][1] is None and [word for word, _ in strip[1:]] == ["a", "red", "car"]
    assert max(share for _, share in strip[1:]) == 1


def test_one_scale_for_words_its_own_for_the_sentence(found):
    maps = found.explanation.maps
    one, other = (dataclasses.replace(found, word=k).heat_range for k in (0, 1))
    assert one == other == (0.0, pytest.approx(maps.max()))
    assert found.heat_range[1] == pytest.approx(found.explanation.overall.max())


def test_display_boxes_follow_the_display_copy(found):
    """Boxes are in pixels of the original and are scaled to what is shown."""
    small = dataclasses.replace(found.seen, frames=(found.seen.frames[0].resize((150, 100)),))
    picture = np.asarray(draw(dataclasses.replace(found, seen=small), Look(show=("box",))))
    changed = np.argwhere((picture != np.asarray(small.frames[0])).any(axis=2))
    right = max(layer.grounding.box_xyxy[2] for layer in found.layers)
    assert changed[:, 1].max() == pytest.approx(right / 2, abs=4)


SIDE = st.floats(-1e4, 1e4)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(x=st.tuples(SIDE, SIDE).map(sorted), y=st.tuples(SIDE, SIDE).map(sorted))
def test_any_box_is_drawn_told_and_kept_as_it_is(found, look, x, y):
    """Also one outside the image or without area."""
    box = (x[0], y[0], x[1], y[1])
    layer = dataclasses.replace(
        found.layers[0], grounding=dataclasses.replace(found.layers[0].grounding, box_xyxy=box)
    )
    kept = dataclasses.replace(found, layers=(layer,), results=(layer.grounding,))
    assert draw(kept, look).size == (300, 200)
    assert "a red car" in cards.plain(cards.twin(kept)) and "a red car" in cards.findings(
        kept.results, (300, 200)
    )
    assert kept.to_dict()["results"][0]["box_xyxy"] == pytest.approx(box, abs=0.5)


def test_twin_tells_every_box_and_escapes(found, look):
    text = cards.plain(cards.twin(found))
    assert "“a red car”" in text and "“a unicorn”: probably not here" in text and "%" in text
    hostile = dataclasses.replace(found.layers[0].grounding, phrase="<script>")
    html = cards.findings((hostile,), (300, 200))
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_degenerate_box_is_flagged():
    whole = Grounding("sky", (0.0, 0.0, 300.0, 200.0), (0.5, 0.5, 1.0, 1.0), 0.9, "found")
    assert "almost everything" in cards.findings((whole,), (300, 200))


def test_cut_text_is_shown():
    answers = Answers("why is " * 30, (Answer("red", 1.0),), "rank", truncated_at=12)
    assert "cut at letter 12" in panels.ask(answers)[0]


def test_result_numbers_survive_json(found):
    data = json.loads(json.dumps(found.to_dict()))
    box = data["results"][0]["box_xyxy"]
    assert box == pytest.approx(found.layers[0].grounding.box_xyxy, abs=0.5)
    assert "maps" not in json.dumps(data)


def test_files_hold_the_result(found, look, tmp_path):
    files = {
        path.rsplit(".", 1)[1]: path
        for path in export.write_files(found, look, "Methods.", tmp_path)
    }
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "picture.coco.json",
        "picture.csv",
        "picture.json",
        "picture.npz",
        "picture.png",
    ]
    picture = Image.open(files["png"])
    assert picture.width == 300 and picture.height > 200
    coco = json.loads((tmp_path / "picture.coco.json").read_text())
    x1, y1, x2, y2 = found.layers[1].grounding.box_xyxy
    assert coco["annotations"][1]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    assert (
        coco["categories"][1]["name"] == "a unicorn"
        and coco["annotations"][1]["verdict"] == "absent"
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "picture.csv").read_text("utf-8-sig"))))
    assert [row["phrase"] for row in rows] == ["a red car", "a unicorn"]
    with np.load(files["npz"]) as arrays:
        assert np.array_equal(arrays["maps_0"], found.layers[0].explanation.maps)
        assert list(arrays["words_1"]) == ["a", "unicorn"]
    assert json.loads((tmp_path / "picture.json").read_text())["methods"] == "Methods."


def test_csv_holds_no_formula(handlers, visitor, shown, look):
    kept = handlers.match(visitor, shown, look, "stub", "=1+1\n@cmd\nfine", "")[1]
    cells = {row["text"] for row in csv.DictReader(io.StringIO(export.table(kept)))}
    assert cells == {"'=1+1", "'@cmd", "fine"}


def test_methods_sentence_names_what_was_done(handlers, visitor, clip_shown, look):
    kept = handlers.inspect(
        visitor, clip_shown, look, "stub", "a dog", "match", "1", "default", "attention"
    )[2]
    sentence = viewing.methods(kept)
    assert "stub" in sentence and "fusion layer 1" in sentence and "attention" in sentence
    assert ", ".join(map(str, kept.seen.indices)) in sentence


@pytest.mark.parametrize(
    "caption, phrases",
    [
        ("there is a red car and two dogs on the grass", "a red car\ntwo dogs\nthe grass"),
        ("a cat left of a ball.", "a cat\na ball"),
        ("", ""),
    ],
)
def test_caption_becomes_phrases(caption, phrases):
    assert viewing.phrases_of(caption) == phrases


def test_hand_offs(handlers, visitor, shown, look, found):
    """Each tab hands over its own text, whatever has come into view since."""
    kept = handlers.describe(visitor, found, look, "stub", *CONTROLS)[2]
    kept = handlers.ask(visitor, kept, look, "stub", "what color is it?", "auto", "")[2]
    kept = handlers.match(visitor, kept, look, "stub", "a dog\na cat", "")[1]
    assert viewing.caption_to_find(kept)[0] == "a red car\na small dog\nthe grass"
    assert viewing.caption_to_match(kept, "x\ny")[0].split("\n") == [CAPTION, "x", "y"]
    best = max(kept.results, key=lambda match: match.probability).text
    texts = {"describe": CAPTION, "ask": "what color is it?", "find": "a red car", "match": best}
    targets = {"describe": "caption", "ask": "answer", "find": "box", "match": "match"}
    for tab in texts:
        assert viewing.text_to_inspect(tab)(kept)[:2] == [texts[tab], targets[tab]]
    second = viewing.choose_layer(found, look, 1)[0]
    assert viewing.text_to_inspect("find")(second)[0] == "a unicorn"
    for without in (found, None):  # leaves what is in the field
        assert (
            viewing.text_to_inspect("ask")(without)[0]
            == viewing.caption_to_find(without)[0]
            == gr.skip()
        )


def test_a_word_of_a_tab_is_of_that_tabs_result(handlers, visitor, shown, look):
    """Whatever has come into view since."""
    kept = handlers.describe(visitor, shown, look, "stub", *CONTROLS)[2]
    kept = handlers.inspect(
        visitor, kept, look, "stub", "two cats", "match", "default", "default", "gradient"
    )[2]
    kept = handlers.find(visitor, kept, look, "stub", "a blue house", 0.3, 0.7, *NO_REGION)[1]
    for tab, text, task in (("describe", CAPTION, "caption"), ("inspect", "two cats", "explain")):
        of_tab, canvas, layers, strip, caption, data = viewing.choose_own_word(tab)(
            kept, look, select(1)
        )
        assert data["task"] == task and of_tab.explanation.text == text and of_tab.word == 1
        assert [word for word, _ in strip["value"][1:]] == text.split() and layers[
            "visible"
        ] is False
        assert f"“{text.split()[1]}”" in cards.plain(caption) and canvas["alt"] == cards.plain(
            cards.twin(of_tab)
        )
    assert (
        viewing.choose_layer(of_tab, look, layers["value"])[0] == gr.skip()
    )  # the list follows, and leaves the word


def test_every_answer_shows_its_map(handlers, visitor, shown, look):
    asked = handlers.ask(visitor, shown, look, "stub", "what color is it?", "auto", "")[2]
    kept = handlers.find(visitor, asked, look, "stub", "a dog", 0.3, 0.7, *NO_REGION)[1]
    for k, answer in enumerate(asked.results[0].answers):
        chosen, _, layers, *_, data = viewing.choose_answer(kept, look, select(0, answer.text))
        assert (
            chosen.explanation is asked.layers[k].explanation
            and layers["value"] == k
            and data["task"] == "answer"
        )


def test_what_has_no_map_says_how_to_get_one(examples, handlers, visitor, shown, look):
    """Stored results have none of caption and answers; neither have those of a region."""
    region = handlers.describe_region(visitor, shown, look, "stub", 10, 10, 100, 100)[2]
    for kept in (shown, stored_shown(examples["scene"], "stub"), region):
        for values in (
            viewing.choose_own_word("describe")(kept, look, select(1)),
            viewing.choose_answer(kept, look, select(0, "red")),
        ):
            told = values.pop(4)
            assert "Press Describe or Ask" in told and told.endswith(cards.caption(kept, look))
            assert values == [gr.skip()] * 5
    assert "Press Describe" in viewing.choose_answer(None, look, select(0, "red"))[4]


def test_links_reopen_scenes_and_never_hold_uploads(shown):
    assert viewing.link_to(shown)[0]["visible"] is False
    assert (
        viewing.link_to(dataclasses.replace(shown, origin="kind=image&scene=5"))[0]["value"]
        == "kind=image&scene=5"
    )


def test_history_keeps_ten_newest_first(handlers, visitor, shown, look):
    kept = handlers.ask(visitor, shown, look, "stub", "what color?", "auto", "")[2]
    rows = [[""] * 3]
    for _ in range(12):
        rows = viewing.remember(kept, rows)
    assert len(rows) == 10 and rows[0][:2] == ["what color?", "red"]


def test_present_hides_what_a_result_lacks(shown, look):
    _, _, layers, strip, _, _ = present(shown, look)
    assert layers["visible"] is False and strip["visible"] is False


def test_the_curve_is_told_in_words_of_all_languages():
    html = curve((0.0, 0.5), {"match": (0.2, 0.9)}, "seconds")
    assert (
        all(word in html for word in ("match", "일치", "匹配"))
        and "0.20 (0.00), 0.90 (0.50)" in html
    )
