"""The stage: what is drawn, told and downloaded of the result in view, without the model."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from app import export
from app.phrases import phrases_of
from app.stage import canvas_value, choices, draw, legend
from app.state import ViewOptions
from app.tabs.find import Find
from app.tabs.inspect import Inspect
from app.view_events import picked
from x2vlm.results import Phrase


@pytest.fixture
def found(ask):
    """The stage with what Find gave, a phrase among it that is absent."""
    tab = Find()
    result = tab.run(ask, tab.defaults | {"phrases": "a red car; a unicorn"})
    return ask.state.with_result("find", result)


@pytest.fixture
def explained(ask):
    tab = Inspect()
    result = tab.run(ask, tab.defaults | {"text": "a small dog"})
    return dataclasses.replace(ask.state, tab="inspect").with_result("inspect", result)


def pixels(state, **options) -> np.ndarray:
    return np.asarray(draw(state, ViewOptions(**options)))


def test_the_stage_shows_the_result_of_the_tab_in_view(found, explained):
    both = dataclasses.replace(found, results=found.results | explained.results)
    assert "a red car" in choices(both)
    other = dataclasses.replace(both, tab="inspect")
    assert "a red car" not in choices(other)
    plain = dataclasses.replace(both, tab="match")
    assert (pixels(plain) == np.asarray(plain.preview.frames[0])).all()


def test_view_changes_never_call_the_model(found, predictor):
    before = list(predictor.calls)
    for what in ("1:", "0:1", "0:"):
        canvas_value(picked(found, what), ViewOptions(opacity=0.3))
    assert predictor.calls == before


@pytest.mark.parametrize("what", ["9:", "0:99", "frame:7", "nonsense", ""])
def test_a_choice_that_does_not_exist_changes_nothing(what, found):
    assert picked(found, what) is found


def test_the_chosen_word_is_marked_and_drawn_on_its_own_scale(explained):
    state = picked(explained, "0:1")
    assert 'data-pick="0:1" aria-pressed="true"' in choices(state)
    assert state.heat_range() == (0.0, pytest.approx(float(state.heat.max())))
    assert state.heat_range(one_scale=True)[1] == float(state.result.explanation.maps.max())
    assert "own scale" in legend(state, ViewOptions())


def test_every_word_leaves_a_visible_map(explained):
    base = np.asarray(explained.preview.frames[0])
    for k in range(3):
        assert (pixels(picked(explained, f"0:{k}")) != base).any()


@pytest.fixture
def in_phrases(explained):
    """The same sentence whose first two words are one phrase, and whose last is in none."""
    found = explained.result.explanation
    phrase = Phrase("a small", 0, 7, (0, 1))
    found = dataclasses.replace(found, phrases=(phrase,))
    layer = dataclasses.replace(explained.result.layers[0], explanation=found)
    result = dataclasses.replace(explained.result, layers=(layer,), found=(found,))
    return explained.with_result("inspect", result)


def test_a_phrase_is_one_part_and_words_between_phrases_are_none(in_phrases):
    shown = choices(in_phrases)
    assert 'data-pick="0:0"' in shown and "a small</button>" in shown
    assert 'data-pick="0:1"' not in shown and 'data-pick="0:2"' not in shown
    assert '<span class="between">dog</span>' in shown


def test_the_legend_names_the_phrase_in_view(in_phrases):
    assert "“a small”" in legend(picked(in_phrases, "0:0"), ViewOptions())


def test_what_is_probably_absent_has_no_box_by_default(found):
    state = picked(found, "1:")
    assert (pixels(state, show=("box",)) != pixels(state, show=("box", "absent"))).any()


def test_canvas_says_size_region_and_words(found):
    state = dataclasses.replace(found, region=(0.0, 0.0, 150.0, 100.0))
    value = canvas_value(state, ViewOptions())
    assert value["size"] == [300, 200]
    assert value["region"] == [0.0, 0.0, 0.5, 0.5]
    assert "a red car" in value["alt"]


def test_files_hold_the_result_and_a_zip_of_them(found, tmp_path):
    paths = export.write_files(found, ViewOptions(), Find().export(found.result), tmp_path)
    names = zipfile.ZipFile(paths[0]).namelist()
    ends = {name.split(".", 1)[1] for name in names}
    assert ends == {"png", "json", "txt", "csv", "coco.json", "npz"}
    kept = json.loads((tmp_path / "picture.json").read_text())
    assert kept["results"][0]["phrase"] == "a red car"
    assert kept["settings"]["asked"]["phrases"] == "a red car; a unicorn"
    maps = np.load(tmp_path / "picture.npz")["maps_0"]
    assert (maps == found.layers[0].explanation.maps).all()
    picture = Image.open(tmp_path / "picture.png")
    assert picture.height > 200  # the legend is below


def test_the_exported_legend_names_phrases_verdicts_and_model(found):
    lines = [text for text, _ in export.legend_lines(found)]
    assert any("a unicorn: absent" in line for line in lines)
    assert any("0123456789ab" in line for line in lines)


def test_the_methods_sentence_is_enough_to_repeat_the_figure(explained):
    said = export.methods(explained)
    for part in ("0123456789ab", "image SHA-256", "method", "target", "layer", "heads", "scale"):
        assert part in said or part in ("method",)
    assert export.image_hash(explained.media.path) in said


def test_a_video_names_its_frames(ask_video):
    tab = Find()
    result = tab.run(ask_video, tab.defaults | {"phrases": "a dog"})
    assert "frames 0" in export.methods(ask_video.state.with_result("find", result))


def test_csv_holds_no_formula():
    (row,) = csv.DictReader(io.StringIO(export.csv_text([{"phrase": "=1+1"}])))
    assert row["phrase"] == "'=1+1"


@pytest.mark.parametrize(
    "caption, phrases",
    [
        ("a red car and a small dog on the grass", ["a red car", "a small dog", "the grass"]),
        ("there are two cats", ["two cats"]),
        ("a boy is performing a trick on a ramp.", ["a boy", "a trick", "a ramp"]),
        ("a dog runs through the snow.", ["a dog", "the snow"]),
        ("a man and a woman sit on a bed.", ["a man", "a woman", "a bed"]),
        ("an orange and white dog with a ball in its mouth", ["a ball"]),
    ],
)
def test_a_caption_becomes_phrases(caption, phrases):
    assert phrases_of(caption).split("\n") == phrases
