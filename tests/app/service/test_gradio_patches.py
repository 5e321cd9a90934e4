"""What `gradio_patches` uses of Gradio's internals is still there, under the same names."""

from __future__ import annotations

import inspect

import gradio as gr
import pytest
from gradio import queueing, route_utils, routes, state_holder
from gradio.queueing import Event, Queue

from app.service import gradio_patches

with gr.Blocks(analytics_enabled=False) as DEMO:
    FIELD = gr.Textbox()

NAMES = [
    (DEMO, "blocks fns state_holder mcp_server_obj"),
    (DEMO.state_holder, "lock time_last_used session_data"),
    (FIELD, "async_move_resource_to_block_cache keep_in_cache"),
    (DEMO._queue, "push process_events send_message clean_events remove_from_queue"),
    (DEMO._queue, "blocks max_size event_ids_to_events process_time_per_fn"),
    (DEMO._queue, "pending_messages_per_session pending_event_ids_session"),
    (DEMO, "default_config"),
    (state_holder, "SessionState"),
    (state_holder.SessionState, "_update_config _update_value_in_config"),
    (queueing, "traceback"),
    (routes, "traceback upload_fn App"),
    (route_utils, "GradioMultiPartParser upload_fn MultiPartException"),
    (route_utils.GradioMultiPartParser, "on_part_data"),
]


@pytest.mark.parametrize("owner, name", [(o, name) for o, names in NAMES for name in names.split()])
def test_the_name_is_there(owner, name):
    assert hasattr(owner, name)


@pytest.mark.parametrize(
    "function, parameters",
    [
        (Queue.push, ["self", "body", "request", "username"]),
        (Queue.process_events, ["self", "events", "batch", "begin_time", "fn"]),
        (Queue.send_message, ["self", "event", "event_message"]),
        (Queue.clean_events, ["self", "session_hash", "event_id"]),
        (Queue.remove_from_queue, ["self", "event_id"]),
        (Event.__init__, ["self", "session_hash", "fn", "request", "username"]),
        (route_utils.GradioMultiPartParser.on_part_data, ["self", "data", "start", "end"]),
    ],
)
def test_the_parameters_are_the_same(function, parameters):
    assert list(inspect.signature(function).parameters) == parameters


@pytest.mark.parametrize(
    "module, text",
    [
        (queueing, "set_task_name("),  # its end names the job that is cancelled
        (queueing, "route_utils.call_process_api("),
        (state_holder, "= SessionState(self.blocks)"),
        (routes, "await upload_fn("),
        (routes, '"maximum allowed size" in exc.message'),
        (route_utils, "GradioMultiPartParser("),
        (route_utils, "self._current_part.file is None"),
    ],
)
def test_the_source_still_uses_it(module, text):
    assert text in inspect.getsource(module)


def test_a_session_is_light_and_whole():
    session = gradio_patches.Session(DEMO)
    assert session.config_values == {} and session[FIELD._id] is FIELD


def test_the_version_that_was_read_is_named():
    assert "Gradio 6.31.0" in gradio_patches.__doc__
