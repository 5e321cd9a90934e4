"""The API over plain HTTP: defaults, errors in words, cancelling one job, notes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from app import limits
from app.service.gradio_patches import knows_event
from tests.app.serving import call, join, post, result, uploaded

WHOLE = {
    "caption": [],
    "ask": ["what?"],
    "ground": [["a dog"]],
    "explain": ["a dog"],
    "match": [["a dog"]],
}


def refused(address: str, route: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Status and detail of a request that is not accepted."""
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(address, route, body, **headers)
    return refusal.value.code, json.loads(refusal.value.read())["detail"]


def named(complaints: list[dict]) -> dict[str, str]:
    """Parameter -> what is wrong with it."""
    return {c["parameter_name"]: c["message"] for c in complaints if not c["is_valid"]}


@pytest.mark.parametrize("meta", [None, "x", 7, [], {}, {"_type": 1}, {"_type": "gradio.FileData"}])
def test_any_meta_is_taken(served, picture_file, meta):
    name, data = call(served.address, "match", [{"path": str(picture_file), "meta": meta}, ["a"]])
    assert (name, data[0]["matches"][0]["text"]) == ("complete", "a")


@pytest.mark.parametrize("endpoint", WHOLE)
def test_values_left_out_at_the_end_take_their_defaults(served, picture_file, endpoint):
    name, data = call(served.address, endpoint, [uploaded(picture_file), *WHOLE[endpoint]])
    everything = served.demo.endpoints.values()
    (parameters,) = (one.parameters for one in everything if one.name == endpoint)
    given = dict(zip(parameters, [uploaded(picture_file), *WHOLE[endpoint]]))
    assert name == "complete"
    assert (name, data) == call(served.address, endpoint, parameters | given)


REGION = [30, 20, 200, 150]


@pytest.mark.parametrize(
    "endpoint, given, result",
    [
        ("caption", {"region": REGION, "prefix": "a"}, "captions"),
        ("ask", {"question": "what?", "region": REGION}, "answers"),
        ("match", {"texts": ["a dog"], "region": REGION}, "matches"),
        ("explain", {"text": "a dog", "layer": "mean", "head": "max"}, "maps"),
        ("faithfulness", {"text": "a dog", "mode": "insertion"}, "verdict"),
    ],
)
def test_what_the_page_can_the_api_can(served, picture_file, endpoint, given, result):
    name, data = call(served.address, endpoint, {"media": uploaded(picture_file)} | given)
    assert name == "complete" and data[0][result] is not None


def test_frames_of_a_video_are_chosen_and_matched_over_time(served, clip_file):
    media = {"media": uploaded(clip_file), "text": "a dog", "frames": [1, 5, 6]}
    name, data = call(served.address, "match_over_time", media)
    assert name == "complete" and len(data[0]["seconds"]) == len(data[0]["matches"]) == 3


@pytest.mark.parametrize(
    "wrong", [{"region": [9, 9, 1, 1]}, {"region": "x"}, {"frames": ["a"]}, {"frames": 3}]
)
def test_a_wrong_region_or_frame_names_its_parameter(served, picture_file, wrong):
    body = {"media": uploaded(picture_file)} | wrong
    status, complaints = refused(served.address, "call/v2/caption", body)
    assert status == 422 and set(named(complaints)) == set(wrong)


@pytest.mark.parametrize("body", [{"data": []}, {"data": [{"path": "x"}]}])
@pytest.mark.parametrize("endpoint", ["ask", "ground", "explain", "match"])
def test_missing_values_are_named(served, endpoint, body):
    status, detail = refused(served.address, f"call/{endpoint}", body)
    parameter = {"ask": "question", "ground": "phrases", "explain": "text", "match": "texts"}
    assert status == 422
    assert named(detail)[parameter[endpoint]].startswith(f"{parameter[endpoint]} is missing.")
    assert ("media" in named(detail)) == (body == {"data": []})


def test_missing_values_by_name_are_named(served):
    status, detail = refused(served.address, "call/v2/match", {})
    assert status == 422
    assert list(named(detail)) == ["media", "texts"]


def test_too_many_values_are_told(served, picture_file):
    status, detail = refused(served.address, "call/match", {"data": [{}, ["a"], None, None, 2]})
    assert status == 422
    assert detail == "5 values given; /match takes 4: media, texts, region, frames. [param/unknown]"


def test_unknown_parameter_is_told_with_the_known_ones(served):
    status, detail = refused(served.address, "call/v2/match", {"text": "a"})
    assert status == 422
    assert detail.startswith("/match has no parameter 'text'. Its parameters are media, texts, ")


@pytest.mark.parametrize(
    "route, status",
    [
        ("call/nope", 404),
        ("call/v2/nope", 404),
        ("call/on_describe", 404),  # the page's own
        ("call/", 404),
        ("run/match", 404),
        ("run/nope", 404),
        ("api/nope", 404),
        ("component_server", 404),
        ("process_recording", 404),
        ("stream/event", 404),
        ("stream/event/close", 404),
        ("vibe-edit", 404),
        ("nope", 404),
        ("", 404),
    ],
)
def test_unknown_routes_are_refused_in_words(served, route, status):
    body = {"data": [], "component_id": 10**6, "session_hash": "a", "fn_name": "f"}
    code, detail = refused(served.address, route, body)
    assert code == status
    assert "api/" in detail and "Internal" not in detail


@pytest.mark.parametrize("fn_index", [10**6, -1])
def test_unknown_function_is_refused_in_words(served, fn_index):
    body = {"data": [], "fn_index": fn_index, "session_hash": "a"}
    code, detail = refused(served.address, "queue/join", body)
    assert code == 404 and detail.startswith("There is no such function.")


def test_too_few_values_for_a_function_of_the_page_are_refused(served):
    fns = served.demo.fns.values()
    page = next(fn for fn in fns if fn.inputs and fn._id not in served.demo.endpoints)
    body = {"data": [], "fn_index": page._id, "session_hash": "a"}
    code, detail = refused(served.address, "queue/join", body)
    assert code == 422 and "too few" in detail


def test_unknown_event_is_told(served):
    assert_unknown(served, "unknown")


def assert_unknown(served, event: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        result(served.address, "match", event, seconds=20)
    assert refusal.value.code == 404
    assert "[job/unknown]" in json.loads(refusal.value.read())["detail"]


@pytest.mark.parametrize("session", [None, "one"])
def test_a_result_is_read_once(served, picture_file, session):
    event = ask(served, picture_file, session, "mine")
    assert result(served.address, "match", event, seconds=20)[0] == "complete"
    assert_unknown(served, event)


def test_a_reader_who_leaves_gives_the_job_up(served, picture_file, held):
    """Its result goes to nobody, so that a second reader must not wait for it."""
    event = ask(served, picture_file, None, "mine")
    with contextlib.suppress(TimeoutError):
        urllib.request.urlopen(f"{served.address}gradio_api/call/match/{event}", timeout=1).read()
    deadline = time.monotonic() + 20
    while knows_event(served.demo._queue, event):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert_unknown(served, event)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"7", b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize("route", ["call/match", "call/v2/match", "queue/join", "cancel"])
def test_a_body_that_is_no_call_is_the_clients_fault(served, route, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{served.address}gradio_api/{route}", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert 400 <= refusal.value.code < 500


@pytest.mark.parametrize("depth", [100, 400, 900])
def test_deep_values_are_the_clients_fault(served, depth):
    value: Any = "a"
    for _ in range(depth):
        value = [value]
    code, _ = refused(served.address, "call/match", {"data": [value, "a"]})
    assert code in (400, 422)


def test_a_large_body_is_refused_with_the_limit(served):
    code, detail = refused(served.address, "call/match", {"data": ["x" * 2**21]})
    assert code == 413
    assert f"{limits.BODY_MEGABYTES} MB" in detail and "[api/bytes]" in detail


def test_an_upload_without_a_file_name_is_told_how_to_send_it(served):
    body = '--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    address = f"{served.address}gradio_api/upload"
    request = urllib.request.Request(address, body.encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert refusal.value.code == 400
    assert "file name" in json.loads(refusal.value.read())["detail"]


@pytest.fixture
def held(served, monkeypatch):
    """Jobs do not end before this event is set."""
    leave, work = threading.Event(), served.stub.work
    monkeypatch.setattr(served.stub, "work", lambda text: (leave.wait(20), work(text)))
    yield leave
    leave.set()


def ask(served, picture: Any, session: str | None, text: str) -> str:
    body = {"data": [uploaded(picture), [text]], "session_hash": session}
    return post(served.address, "call/match", body)["event_id"]


def cancel(served, session: str, event: str) -> bool:
    body = {"session_hash": session, "event_id": event, "fn_index": 0}
    return post(served.address, "cancel", body)["success"]


@pytest.mark.parametrize("which", range(3))
def test_a_cancel_ends_the_job_it_names_and_no_other(served, picture_file, held, which):
    events = [ask(served, picture_file, "one", f"text {k}") for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(result, served.address, "match", event) for event in events]
        assert cancel(served, "one", events[which])
        name, data = ends[which].result(20)
        assert (name, data["error"]) == ("error", "Stopped, as you asked. [job/cancelled]")
        held.set()
        others = [ends[k].result(20) for k in range(3) if k != which]
    texts = [data[0]["matches"][0]["text"] for _, data in others]
    assert texts == [f"text {k}" for k in range(3) if k != which]


def test_nobody_cancels_the_job_of_another(served, picture_file, held):
    event = ask(served, picture_file, "one", "mine")
    assert not cancel(served, "another", event)
    assert not cancel(served, "one", "unknown")
    held.set()
    assert result(served.address, "match", event)[0] == "complete"


def test_a_cancel_by_the_events_own_id_works_where_no_session_was_given(served, picture_file, held):
    event = ask(served, picture_file, None, "mine")
    assert cancel(served, event, event)


def test_a_cancel_that_names_no_job_is_told_what_to_name(served):
    code, detail = refused(served.address, "cancel", {"session_hash": "one"})
    assert code == 422 and "event_id" in detail


def test_one_session_stream_gets_every_result_but_the_cancelled_one(served, picture_file, held):
    function = next(k for k, one in served.demo.endpoints.items() if one.name == "match")
    events = [
        post(
            served.address,
            "queue/join",
            {
                "data": [uploaded(picture_file), [f"text {k}"]],
                "fn_index": function,
                "session_hash": "stream",
            },
        )["event_id"]
        for k in range(3)
    ]
    assert cancel(served, "stream", events[1])
    held.set()
    address = f"{served.address}gradio_api/queue/data?session_hash=stream"
    with urllib.request.urlopen(address, timeout=30) as stream:
        messages = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
    done = {m["event_id"]: m["output"] for m in messages if m["msg"] == "process_completed"}
    assert {events.index(event) for event in done} == {0, 1, 2}
    assert [bool(done[event].get("data")) for event in events] == [True, False, True]
    assert messages[-1]["msg"] == "close_stream"


@pytest.mark.parametrize("endpoint", WHOLE)
def test_what_should_be_known_about_a_file_is_part_of_every_result(
    served, upload_folder, picture_file, endpoint
):
    animated = upload_folder / "animated.gif"
    frames = [Image.new("RGB", (60, 40), (90 * k, 0, 0)) for k in range(3)]
    frames[0].save(animated, save_all=True, append_images=frames[1:])
    for path, notes in ((animated, 1), (picture_file, 0)):
        name, data = call(served.address, endpoint, [uploaded(path), *WHOLE[endpoint]])
        assert name == "complete"
        assert len(data[0]["notes"]) == notes
        assert all("[image/animated]" in note for note in data[0]["notes"])


@pytest.mark.parametrize("headers, code", [({}, " [text/empty]"), ({"X_From_Page": "1"}, "")])
def test_codes_are_for_callers_of_the_api_alone(served, picture_file, headers, code):
    _, detail = refused(
        served.address, "call/ask", {"data": [uploaded(picture_file), " "]}, **headers
    )
    assert named(detail)["question"].endswith(f"Write it in words and try again.{code}")


def test_a_call_by_name_and_one_in_order_are_the_same(served, picture_file):
    values = {"media": uploaded(picture_file), "texts": ["a", "b"]}
    found = [call(served.address, "match", data) for data in (values, list(values.values()))]
    assert found[0] == found[1]
    assert join(served.address, "match", values)
