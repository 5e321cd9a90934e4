"""How the page is wired, and that a new tab needs nothing but itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import gradio as gr
import pytest

from app import build_demo
from app.i18n import LANGUAGES, TEXT
from app.state import ViewState
from app.tab import Tab
from app.tabs import TABS
from app.wiring import Call
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
    values = {component: getattr(component, "value", None) for component in settle.inputs}
    values |= {page.state: state, tab.fresh: result, page.model: "stub"}
    got = settle.fn(SimpleNamespace(session_hash="v"), *[values[c] for c in settle.inputs])
    after = got[page.state]
    assert isinstance(after, ViewState)
    assert after.tab == tab_after and "match" in after.results
    assert (page.bar in got) == handed_over


def test_call_gives_values_by_component():
    box = object()
    assert Call({box: 3}, SimpleNamespace(session_hash=None)).session == ""
