"""How the page is wired, and that a new tab needs nothing but itself."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, ClassVar

import gradio as gr
import pytest

from app import build_demo
from app.i18n import LANGUAGES, TEXT
from app.state import ViewState
from app.tab import Tab
from app.tabs import TABS
from app.view_events import picked
from app.wiring import Call, Held
from tests.app.stub import StubPredictor


@pytest.fixture(scope="module")
def demo(examples) -> gr.Blocks:
    return build_demo(lambda name: StubPredictor(), ("stub",), stored=examples)


class Toy(Tab):
    """A tab that this test adds."""

    name = "toy"
    task = "match"
    defaults: ClassVar = {"text": "a toy"}

    def build_fields(self, values):
        self.fields["text"] = gr.Textbox(values["text"])

    def run(self, ask, values):
        return self.result(ask, values, "match", ask("match", [values["text"]]))

    def render(self, result, state):
        return f"<p>{result.found[0].text}</p>"


def test_a_tab_is_its_file_its_entry_and_its_texts(examples, monkeypatch):
    for key in ("tab_toy", "run_toy", "empty_toy", "region_toy"):
        monkeypatch.setitem(TEXT, key, (key,) * len(LANGUAGES))
    demo = build_demo(lambda name: StubPredictor(), ("stub",), stored=examples, tabs=(*TABS, Toy))
    assert "toy" in demo.page.tabs
    found = {fn.name for fn in demo.fns.values()}
    assert {"ask", "settle_result", "tell"} <= found


def test_a_lost_session_has_an_empty_stage(demo):
    """Gradio sets a state that expired, or whose session was dropped, to its initial value."""
    states = [block.value for block in demo.blocks.values() if isinstance(block, gr.State)]
    assert states and set(states) == {None}


def test_first_paint_without_known_weights_has_no_stored_result(demo):
    assert demo.page.painted.results == {}


def test_first_paint_under_its_own_weights_shows_its_results(examples):
    demo = build_demo(
        lambda name: StubPredictor(), ("stub",), stored=examples, weights=lambda _: "0123456789ab"
    )
    assert demo.page.painted.result.task == "ground"
    assert "a red car" in demo.page.tabs["find"].card.value


@pytest.mark.parametrize("trigger", ["upload", "stop_recording", "clear"])
def test_none_of_two_quick_uploads_is_dropped(demo, trigger):
    modes = {
        fn.trigger_mode
        for fn in demo.fns.values()
        if fn.fn and trigger in {event for _, event in fn.targets}
    }
    assert modes == {"multiple"}


def test_a_refused_upload_leaves_the_uploader(demo):
    after = [fn for fn in demo.fns.values() if fn.trigger_only_on_failure]
    assert {fn.js for fn in after} == {"() => null"} and len(after) == 2


@pytest.mark.parametrize("handed_over, tab_after", [(False, "find"), (True, "match")])
def test_a_result_that_comes_late_joins_the_stage_as_it_is_then(
    demo, state, ask, handed_over, tab_after
):
    """The visitor has opened another tab meanwhile: the stage stays with that one, but for a
    hand-over, which opens its target."""
    page, tab = demo.page, demo.page.tabs["match"]
    result = tab.run(ask, tab.defaults | {"texts": "a dog"})
    settle = next(
        fn
        for fn in demo.fns.values()
        if fn.name == "settle_result"
        and tab.fresh in fn.inputs
        and (page.bar in fn.outputs) == handed_over
    )
    given = {page.state: Held(state), tab.fresh: result, page.model: "stub"}
    got = happened(settle, given)
    after = got[page.state].state
    assert isinstance(after, ViewState)
    assert after.tab == tab_after and "match" in after.results
    assert (page.bar in got) == handed_over


def happened(fn: Any, given: dict, *chosen: Any) -> dict:
    """What an event shows, with these values of its inputs; the others have their first ones."""
    values = {component: getattr(component, "value", None) for component in fn.inputs} | given
    request = SimpleNamespace(session_hash="v", query_params={})
    got = fn.fn(request, *chosen, *[values[component] for component in fn.inputs])
    return asyncio.run(got) if inspect.iscoroutine(got) else got


def event_of(demo: gr.Blocks, component: Any, kind: str) -> Any:
    return next(fn for fn in demo.fns.values() if fn.fn and (component._id, kind) in fn.targets)


@pytest.fixture
def on_stage(demo, state, ask) -> dict:
    """The inputs of a visitor's events: found phrases on the stage, and the model."""
    tab = demo.page.tabs["find"]
    result = tab.run(ask, tab.defaults | {"phrases": "a red car\na small dog"})
    return {demo.page.state: Held(state.with_result("find", result)), demo.page.model: "stub"}


def test_two_changes_of_the_view_at_once_are_both_kept(demo, on_stage, monkeypatch):
    """A region is drawn while a chosen phrase is still being drawn."""
    page, choosing = demo.page, threading.Event()

    def slowly(*args):
        choosing.set()
        time.sleep(0.3)  # in which the region would be drawn
        return picked(*args)

    monkeypatch.setattr("app.view_events.picked", slowly)
    choose = event_of(demo, page.stage.choices, "select")
    draw = event_of(demo, page.stage.canvas, "select")
    with ThreadPoolExecutor(1) as pool:
        chosen = pool.submit(happened, choose, on_stage, SimpleNamespace(value="1:"))
        assert choosing.wait(5)
        happened(draw, on_stage, SimpleNamespace(value="region", index=[10, 10, 90, 90]))
        chosen.result(5)
    after = on_stage[page.state].state
    assert after.result.layer == 1 and after.region == (10.0, 10.0, 90.0, 90.0)


def test_what_arrives_finds_the_tab_that_was_opened_meanwhile(demo, on_stage, monkeypatch):
    page = demo.page
    preview = page.runner.preview

    def meanwhile(*args):
        happened(event_of(demo, page.items["ask"], "select"), on_stage)
        return preview(*args)

    monkeypatch.setattr(page.runner, "preview", meanwhile)
    chosen = SimpleNamespace(value="scene")
    shown = happened(event_of(demo, page.examples, "select"), on_stage, chosen)
    after = on_stage[page.state].state
    assert after.tab == "ask" and after.origin == "example=scene"
    assert page.bar not in shown  # whoever is in a tab that asks nothing stays there
    empty = on_stage | {page.state: Held()}
    assert page.bar in happened(event_of(demo, page.examples, "select"), empty, chosen)


@pytest.mark.parametrize(
    "sides, region",
    [
        ((20, 0, 0, 0), None),
        ((20, 10, 80, 0), None),
        ((20, 10, 80, 90), (20.0, 10.0, 80.0, 90.0)),
        ((0, 0, 80, 90), (0.0, 0.0, 80.0, 90.0)),
    ],
)
def test_a_region_is_typed_side_by_side(demo, on_stage, sides, region):
    """Nothing is wrong while right or bottom is still to come."""
    page = demo.page
    happened(event_of(demo, page.sides[0], "blur"), on_stage | dict(zip(page.sides, sides)))
    assert on_stage[page.state].state.region == region


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_beams": 10**9},
        {"num_captions": 0},
        {"max_new_tokens": 1.5},
        {"min_length": -1},
        {"top_p": 0},
        {"temperature": float("nan")},
        {"seed": 2**40},
    ],
)
def test_a_number_out_of_range_is_refused_in_words(demo, on_stage, wrong, monkeypatch):
    """The page's sliders end before; whoever sends more is told so before the model is asked."""
    describe = demo.page.tabs["describe"]
    given = {describe.fields[name]: value for name, value in wrong.items()}
    monkeypatch.setattr(demo.page.runner, "run", None)
    with pytest.raises(gr.Error, match=r"must be a (whole )?number from \S+ to \S+\."):
        happened(event_of(demo, describe.go, "click"), on_stage | given)


def test_call_gives_values_by_component():
    box = object()
    assert Call({box: 3}, SimpleNamespace(session_hash=None)).session == ""
