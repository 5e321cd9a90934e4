"""What the stage shows and what is handed out: drawn from kept results, never with the model."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app import cards, export, panels, viewing
from app.curve import curve
from app.view import Look, canvas_value, draw, present, words
from x2vlm.results import Answer, Answers, Grounding

NO_REGION = (None, None, None, None)


@pytest.fixture
def found(handlers, visitor, shown, look):
    """Two phrases found on the picture."""
    return handlers.find(visitor, shown, look, "stub", "a red car\na unicorn", 0.3, 0.7, *NO_REGION)[1]


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
    for controls in ((["heat"], 0.5, 0, "viridis", True), (["box"], 0.5, 0.2, "magma", False), ([], 0, 0, "gray", True)):
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
    for choose in (viewing.choose_own_word, viewing.choose_frame):
        if event.index > 0:
            assert all(isinstance(value, dict) for value in choose(found, look, event))
    assert all(isinstance(value, dict) for value in viewing.choose_layer(found, look, 99))
    assert all(isinstance(value, dict) for value in viewing.choose_word(None, look, event))


def test_flat_map_is_said_and_not_stretched(handlers, visitor, shown, look):
    kept = handlers.inspect(visitor, shown, look, "stub", "a flat thing", "match", "default", "default", "gradient")[2]
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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.tuples(SIDE, SIDE).map(sorted), y=st.tuples(SIDE, SIDE).map(sorted))
def test_any_box_is_drawn_told_and_kept_as_it_is(found, look, x, y):
    """Also one outside the picture or without area."""
    box = (x[0], y[0], x[1], y[1])
    layer = dataclasses.replace(found.layers[0], grounding=dataclasses.replace(found.layers[0].grounding, box_xyxy=box))
    kept = dataclasses.replace(found, layers=(layer,), results=(layer.grounding,))
    assert draw(kept, look).size == (300, 200)
    assert "a red car" in cards.plain(cards.twin(kept)) and "a red car" in cards.findings(kept.results, (300, 200))
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
    files = {path.rsplit(".", 1)[1]: path for path in export.write_files(found, look, "Methods.", tmp_path)}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["picture.coco.json", "picture.csv", "picture.json", "picture.npz", "picture.png"]
    picture = Image.open(files["png"])
    assert picture.width == 300 and picture.height > 200
    coco = json.loads((tmp_path / "picture.coco.json").read_text())
    x1, y1, x2, y2 = found.layers[1].grounding.box_xyxy
    assert coco["annotations"][1]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    assert coco["categories"][1]["name"] == "a unicorn" and coco["annotations"][1]["verdict"] == "absent"
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
    kept = handlers.inspect(visitor, clip_shown, look, "stub", "a dog", "match", "1", "default", "attention")[2]
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
    described = handlers.describe(visitor, shown, look, "stub", "beam", 3, 1, 0, 30, 0.9, 1.0, 0, "")[2]
    assert viewing.caption_to_find(described)[0] == "a red car\na small dog\nthe grass"
    assert viewing.text_to_inspect(described)[:2] == ["a red car and a small dog on the grass", "caption"]
    assert viewing.caption_to_match(described, "x\ny")[0].split("\n")[1:] == ["x", "y"]
    assert viewing.text_to_inspect(found)[:2] == ["a red car", "box"]
    assert viewing.text_to_inspect(None)[0] == ""


def test_links_reopen_scenes_and_never_hold_uploads(shown):
    assert viewing.link_to(shown)[0]["visible"] is False
    assert viewing.link_to(dataclasses.replace(shown, origin="kind=image&scene=5"))[0]["value"] == "kind=image&scene=5"


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
    assert all(word in html for word in ("match", "일치", "匹配")) and "0.20 (0.00), 0.90 (0.50)" in html
