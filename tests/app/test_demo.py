"""How the page is wired: what a visitor begins with, what an arrival resets, which events may
overlap."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from app import build_demo
from app.arrivals import stored_shown
from app.view import Shown
from tests.app.stub import StubPredictor


@pytest.fixture(scope="module")
def demo(examples) -> gr.Blocks:
    return build_demo(lambda name: StubPredictor(), ("stub",), stored=examples)


def events(demo, name: str) -> list:
    """The events of a handler, in their order."""
    return [fn for fn in demo.fns.values() if fn.name == name]


def triggers(fn) -> set[str]:
    return {trigger for _, trigger in fn.targets}


def test_a_lost_session_has_an_empty_stage(demo):
    """Gradio sets a state that expired, or whose session was dropped, to its initial value."""
    session = SessionState(demo)
    states = [session[key] for key, block in demo.blocks.items() if isinstance(block, gr.State)]
    assert not any(isinstance(state, Shown) for state in states) and None in states


def test_the_painted_example_is_on_the_stage_at_once(demo, examples):
    (opened,) = events(demo, "open")
    assert not opened.queue and triggers(opened) == {"load"}
    shown, tab = opened.fn(SimpleNamespace(query_params={"tab": "ask"}))
    assert (
        shown.origin == "example=scene" == stored_shown(examples["scene"], "stub").origin
        and shown.layers
    )
    assert tab == gr.update(selected="ask")
    assert opened.fn(SimpleNamespace(query_params={"tab": "<script>"}))[1] == gr.skip()
    assert [fn.trigger_after for fn in events(demo, "arrive")] == [opened._id]


@pytest.mark.parametrize("name", ["upload", "clear", "use_frames", "new_scene", "example"])
def test_an_arrival_resets_what_belongs_to_the_picture_before(
    demo, arrivals, visitor, look, clip_shown, clip_file, name
):
    given = {
        "upload": (str(clip_file), look, "stub"),
        "clear": (look,),
        "use_frames": (clip_shown, look, "stub", 2, ""),
        "new_scene": ("video", look, "stub"),
        "example": (SimpleNamespace(index=0), look, "stub"),
    }[name]
    values = getattr(arrivals, name)(visitor, *given)
    for event in events(demo, name):
        assert len(values) == len(event.outputs)
        got = list(zip(event.outputs, values))
        assert [value for block, value in got if isinstance(block, gr.Number)] == [0] * 4
        by_id = {block.elem_id: value for block, value in got if block.elem_id}
        assert by_id["files"] == gr.update(value=None, visible=False)
        assert by_id["link"] == gr.update(value="", visible=False)
        notes = [
            value
            for block, value in got
            if isinstance(block, gr.HTML) and value == gr.update(visible=False)
        ]
        assert len(notes) == 1  # about links


@pytest.mark.parametrize("trigger", ["select", "upload", "stop_recording", "clear"])
def test_none_of_two_quick_choices_or_uploads_is_dropped(demo, trigger):
    """The browser would drop the second ("once"), or repeat the first one's choice
    ("always_last")."""
    modes = {fn.trigger_mode for fn in demo.fns.values() if fn.fn and trigger in triggers(fn)}
    assert modes == {"multiple"}


def test_a_refused_upload_leaves_the_uploader(demo):
    for upload in events(demo, "upload"):
        (after,) = [
            fn
            for fn in demo.fns.values()
            if fn.trigger_after == upload._id and fn.trigger_only_on_failure
        ]
        assert after.outputs == upload.inputs[:1] and after.js == "() => null" and not after.fn


@pytest.mark.parametrize(
    "name", ["describe", "deletion", "describe_region", "ask_region", "rank_region"]
)
def test_an_empty_stage_is_told_by_the_handler_where_no_field_in_view_can_tell_it(demo, name):
    (event,) = events(demo, name)
    assert event.validator is None
