"""Every model event with a good, an empty and a hostile input."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import app.arrivals
import app.handlers
import app.viewing
from app.handlers import Handlers
from app.service.events import report_errors
from app.state import MediaRef
from app.view import Look, Shown
from x2vlm.errors import MediaError, ParameterError, TextError
from x2vlm.results import Answers

HOSTILE = "<img src=x onerror=alert(1)> {x} ${y} \u202e [MASK]"
CONTROLS = ("beam", 3, 2, 0, 30, 0.9, 1.0, 0, "")
NO_REGION = (None, None, None, None)


def arguments(name: str, text: str) -> tuple:
    """What the page hands to a handler after shown, look and model."""
    return {
        "describe": (*CONTROLS[:-1], text),
        "ask": (text, "auto", ""),
        "find": (text, 0.3, 0.7, *NO_REGION),
        "inspect": (text, "match", "default", "default", "gradient"),
        "match": (text, ""),
        "ask_region": (text, 10, 10, 100, 100),
        "rank_region": (text, 10, 10, 100, 100),
        "describe_region": (10, 10, 100, 100),
    }[name]


TASKS = {
    "describe": "caption",
    "ask": "answer",
    "find": "ground",
    "inspect": "explain",
    "match": "match",
    "ask_region": "answer_region",
    "rank_region": "match_region",
    "describe_region": "describe_region",
}


def result_of(values: list) -> dict:
    """The JSON that the page shows: the last of the stage's values."""
    return json.loads(json.dumps(values[-1]))


@pytest.mark.parametrize("name", TASKS)
def test_good_input_answers(name, handlers, visitor, shown, look):
    values = getattr(handlers, name)(visitor, shown, look, "stub", *arguments(name, "a red car"))
    result = result_of(values)
    assert result["task"] == TASKS[name]
    assert result["results"] and result["media"]["size"] == [300, 200]


@pytest.mark.parametrize(
    "name", [name for name in TASKS if name not in ("describe", "describe_region")]
)
@pytest.mark.parametrize("text", ["", "  \u00a0\u200b ", None])
def test_empty_text_is_refused(name, text, handlers, predictor, visitor, shown, look):
    asked = len(predictor.calls)
    with pytest.raises(TextError) as refusal:
        getattr(handlers, name)(visitor, shown, look, "stub", *arguments(name, text))
    assert refusal.value.code == "text/empty"
    assert len(predictor.calls) == asked


@pytest.mark.parametrize("name", TASKS)
def test_empty_stage_is_refused(name, handlers, visitor, look):
    with pytest.raises(MediaError, match="Add a picture or a clip first"):
        getattr(handlers, name)(visitor, None, look, "stub", *arguments(name, "a red car"))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "describe_region"])
def test_hostile_text_comes_back_escaped(name, handlers, visitor, shown, look):
    values = getattr(handlers, name)(visitor, shown, look, "stub", *arguments(name, HOSTILE))
    html = [value for value in values if isinstance(value, str)]
    assert html and not any("<img" in value for value in html)


@pytest.mark.parametrize(
    "name", [name for name in TASKS if name not in ("describe", "describe_region")]
)
def test_long_text_is_refused_with_its_limit(name, handlers, visitor, shown, look):
    with pytest.raises(TextError, match="the limit is 2000"):
        getattr(handlers, name)(visitor, shown, look, "stub", *arguments(name, "x" * 10_000))


@pytest.mark.parametrize(
    "at, value", [(1, -1), (1, 1e9), (1, 1.5), (2, 0), (4, float("nan")), (5, 2.0), (7, None)]
)
def test_caption_numbers_outside_their_range(at, value, handlers, visitor, shown, look):
    controls = [*CONTROLS]
    controls[at] = value
    with pytest.raises(ParameterError) as refusal:
        handlers.describe(visitor, shown, look, "stub", *controls)
    assert refusal.value.code == "param/range"


@pytest.mark.parametrize(
    "sides",
    [
        (10, 10, 10, 50),
        (1000, 1000, 1100, 1100),
        (10, None, 20, 20),
        NO_REGION,
        (float("nan"), 0, 5, 5),
    ],
)
def test_region_without_area_is_refused(sides, handlers, visitor, shown, look):
    with pytest.raises(ParameterError) as refusal:
        handlers.describe_region(visitor, shown, look, "stub", *sides)
    assert refusal.value.code == "box/invalid"


def test_find_clips_a_region_and_tells_its_overlap(handlers, visitor, shown, look):
    values = handlers.find(visitor, shown, look, "stub", "a dog", 0.3, 0.7, 400, 300, -50, -50)
    assert "IoU" in values[0]


def test_absent_phrase_is_told_in_every_form(handlers, visitor, shown, look):
    card, kept, canvas, *_, data = handlers.find(
        visitor, shown, look, "stub", "a unicorn", 0.3, 0.7, *NO_REGION
    )
    assert "probably not here" in card
    assert data["results"][0]["verdict"] == "absent"
    assert "probably not here" in canvas["alt"] and "아마 없음" not in canvas["alt"]
    assert kept.layers[0].grounding.verdict == "absent"


def test_every_answer_that_is_shown_has_a_map(handlers, predictor, visitor, shown, look):
    _, label, kept, *_ = handlers.ask(visitor, shown, look, "stub", "what color is it?", "auto", "")
    assert (
        [layer.name for layer in kept.layers]
        == ["red", "blue", "two", "yes", "no"]
        == list(label["value"])
    )
    assert all(layer.explanation for layer in kept.layers) and predictor.calls.count("explain") == 5


def test_no_answer_is_shown_as_none(handlers, predictor, visitor, shown, look, monkeypatch):
    monkeypatch.setattr(
        predictor, "answer", lambda scene, question, **_: Answers(question, (), "generate")
    )
    card, label, kept, *_ = handlers.ask(
        visitor, shown, look, "stub", "what color is it?", "generate", ""
    )
    assert "–" in card and label["visible"] is False
    assert app.viewing.remember(kept, []) == [["what color is it?", "", 0.0]]


def test_own_choices_are_ranked(handlers, visitor, shown, look):
    data = handlers.ask(visitor, shown, look, "stub", "which?", "generate", "cat\ndog")[-1]
    assert [answer["text"] for answer in data["results"][0]["answers"]] == ["cat", "dog"]
    assert data["results"][0]["mode"] == "rank"


def test_template_fills_every_text(handlers, visitor, shown, look):
    data = handlers.match(visitor, shown, look, "stub", "cat\ndog", "a picture of a {}")[-1]
    assert {found["text"] for found in data["results"]} == {
        "a picture of a cat",
        "a picture of a dog",
    }
    with pytest.raises(TextError):
        handlers.match(visitor, shown, look, "stub", "cat", "a picture")


def test_model_without_maps_still_describes(handlers, predictor, visitor, shown, look):
    predictor.missing["explain"] = "This checkpoint has no cross-attention."
    kept = handlers.describe(visitor, shown, look, "stub", *CONTROLS)[2]
    assert kept.layers[0].explanation is None


def test_clip_answers_over_time_and_annotates(handlers, visitor, clip_shown, look):
    curve = handlers.over_time(visitor, clip_shown, "stub", "a dog")
    assert curve.count("data-k=") == 4
    clip = handlers.annotate(visitor, clip_shown, "stub", "a dog\na car")
    assert b"ftyp" in Path(clip["value"]).read_bytes()[:4096]
    data = handlers.find(visitor, clip_shown, look, "stub", "a dog", 0.3, 0.7, *NO_REGION)[-1]
    assert data["results"][0]["frame"] == clip_shown.frame
    assert data["media"]["frames"] == list(clip_shown.seen.indices)


def test_deletion_and_comparison_need_a_map(handlers, visitor, shown, look):
    for call in (
        lambda s: handlers.deletion(visitor, s, "stub"),
        lambda s: handlers.compare(visitor, s, look, "stub", "random"),
    ):
        with pytest.raises(ParameterError, match="no map in view"):
            call(shown)
    kept = handlers.inspect(
        visitor, shown, look, "stub", "a dog", "match", "default", "default", "gradient"
    )[2]
    assert "+0.20" in handlers.deletion(visitor, kept, "stub")
    slider, told = handlers.compare(visitor, kept, look, "stub", "random")
    assert (
        len(slider["value"]) == 2
        and told.count("hottest at") == 2
        and "gradient" in told
        and "random" in told
    )


@pytest.mark.parametrize("name", ["describe_region", "ask_region", "rank_region"])
@pytest.mark.parametrize("frame", [0, 3])
def test_a_region_of_a_clip_is_of_the_frame_in_view(
    name, frame, handlers, runner, visitor, clip_shown, look, tmp_path
):
    """As if that frame alone had been uploaded."""
    clip_shown.seen.frames[frame].save(tmp_path / "frame.png")
    media = MediaRef(str(tmp_path / "frame.png"))
    picture = Shown(media, runner.preview(media, None, "visitor"))
    of_clip, of_picture = (
        result_of(
            getattr(handlers, name)(visitor, on_stage, look, "stub", *arguments(name, "a red car"))
        )
        for on_stage in (dataclasses.replace(clip_shown, frame=frame), picture)
    )
    assert of_clip["results"] == of_picture["results"]
    assert of_clip["settings"] == of_picture["settings"] | {"frame": frame}


@pytest.fixture
def asked(predictor, monkeypatch):
    """Scene, arguments and options of the last call of each slower look."""
    last = {}

    def watched(name):
        call = getattr(predictor, name)

        def watch(scene, *args, cancel=None, **options):
            last[name] = (scene, *args, options)
            return call(scene, *args, **options)

        return watch

    for name in ("explain", "deletion_check"):
        monkeypatch.setattr(predictor, name, watched(name))
    return last


def test_the_map_of_a_frame_is_tested_and_compared_on_that_frame(
    handlers, visitor, clip_shown, look, asked
):
    """Even when another frame has come into view since."""
    at_first = dataclasses.replace(clip_shown, frame=0)
    found = handlers.find(visitor, at_first, look, "stub", "a dog\na car", 0.3, 0.7, *NO_REGION)[1]
    moved = dataclasses.replace(found, frame=3, layer=1)
    handlers.deletion(visitor, moved, "stub")
    slider, _ = handlers.compare(visitor, moved, Look(opacity=0), "stub", "random")
    for scene in (asked["deletion_check"][0], asked["explain"][0]):
        assert scene.kind == "image" and np.array_equal(scene.image, clip_shown.seen.frames[0])
    assert asked["deletion_check"][1] is found.layers[1].explanation
    assert asked["explain"][1] == "a car"
    assert all(np.array_equal(picture, clip_shown.seen.frames[0]) for picture in slider["value"])
    whole = handlers.inspect(
        visitor, clip_shown, look, "stub", "a dog", "match", "default", "default", "gradient"
    )[2]
    handlers.deletion(visitor, whole, "stub")
    assert asked["deletion_check"][0].kind == "video"


def test_comparison_changes_the_method_alone(handlers, visitor, shown, look, asked):
    kept = handlers.inspect(visitor, shown, look, "stub", "a dog", "box", "1", "max", "gradient")[2]
    handlers.compare(visitor, kept, look, "stub", "attention")
    _, text, options = asked["explain"]
    assert text == "a dog"
    assert options == {
        "target": "box",
        "layer": 1,
        "head": "max",
        "answer": None,
        "method": "attention",
    }
    kept = handlers.ask(visitor, kept, look, "stub", "what color is it?", "auto", "")[2]
    handlers.compare(visitor, dataclasses.replace(kept, layer=1), look, "stub", "random")
    _, text, options = asked["explain"]
    assert (
        text == "what color is it?"
        and options["target"] == "answer"
        and options["answer"] == "blue"
    )
    assert options["layer"] is options["head"] is None


def test_refusals_become_one_sentence_and_crashes_tell_nothing():
    import gradio as gr

    @report_errors
    def refuses():
        raise MediaError("<b>.png: no", "image/format")

    @report_errors
    def crashes():
        raise RuntimeError("/secret/path at 0x7f00")

    with pytest.raises(gr.Error, match=r"&lt;b&gt;.png: no \[image/format\]"):
        refuses()
    with pytest.raises(gr.Error) as crash:
        crashes()
    assert "secret" not in str(crash.value) and "job/crashed" in str(crash.value)


@pytest.mark.parametrize("module", [app.handlers, app.viewing, app.arrivals])
def test_handlers_stay_short(module):
    """At most 15 statements, inner functions apart, as a handler only checks, calls and shows."""
    tree = ast.parse(inspect.getsource(module))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        length = sum(
            isinstance(part, ast.stmt)
            for node in function.body
            if not isinstance(node, ast.FunctionDef)
            for part in ast.walk(node)
        )
        assert length <= 15, f"{function.name}: {length} statements"


def test_handlers_are_typed():
    for name, handler in inspect.getmembers(Handlers, inspect.isfunction):
        hints = inspect.signature(handler)
        untyped = [
            p
            for p in hints.parameters.values()
            if p.name != "self" and p.annotation is inspect.Parameter.empty
        ]
        assert not untyped and (
            name == "__init__" or hints.return_annotation is not inspect.Signature.empty
        ), name
