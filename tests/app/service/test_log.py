"""Failures in the log name classes and lines of code, never what a visitor sent."""

from __future__ import annotations

import logging

import gradio as gr
import pytest
from gradio import queueing

from app.service.events import report_errors
from app.service.log import log_failure
from tests.app.serving import post, result, uploaded

SECRET = "a secret of the visitor"


def fails() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"no such file: /tmp/{SECRET}.png") from error


@pytest.fixture
def logged(caplog, capfd):
    """All that is logged or printed, as one text."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())


def test_a_failure_is_found_without_its_message(logged):
    try:
        fails()
    except ValueError:
        log_failure("the test")
    text = logged()
    assert SECRET not in text
    assert "the test failed\nValueError\n" in text and "KeyError" in text
    assert "app/service/test_log.py:" in text and "in fails" in text


def test_a_failed_handler_is_logged_so(logged):
    with pytest.raises(gr.Error, match="job/crashed"):
        report_errors(fails)()
    assert "fails failed\nValueError" in (text := logged()) and SECRET not in text


@pytest.mark.parametrize("fault", ["work", "input"])
def test_a_served_failure_is_logged_so(served, picture_file, monkeypatch, logged, fault):
    values = [uploaded(picture_file), [SECRET]]
    if fault == "work":
        monkeypatch.setattr(served.stub, "work", lambda text: fails())
    else:  # inside Gradio, before the handler
        monkeypatch.setattr(queueing.route_utils, "compile_gr_request", lambda **_: fails())
    event = post(served.address, "call/match", {"data": values})["event_id"]
    name, told = result(served.address, "match", event, seconds=20)
    assert (name, told["error"][-13:]) == ("error", "[job/crashed]")
    assert "ValueError" in (text := logged())
    assert SECRET not in text
