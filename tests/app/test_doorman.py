"""The door: health, the stamp that a job gets, and how often one address may ask."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from unittest.mock import MagicMock

import pytest
from gradio.queueing import ProcessTime
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from app import doorman, limits
from app.doorman import Doorman
from app.runtime import Models, Studio
from tests.app.stub import StubPredictor

JOIN = "/gradio_api/queue/join"


async def behind(scope, receive, send):
    """What the door leads to: tells whether the stamp is there."""
    await JSONResponse({"stamped": "asked" in scope.get("state", {})})(scope, receive, send)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(doorman.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def door() -> Doorman:
    return Doorman(behind, Studio(Models(lambda name: StubPredictor(), ("stub",))), quota=3)


def test_health_tells_the_truth(door):
    client = TestClient(door)
    assert client.get("/healthz").json() == {"model": "stub", "busy": 0}
    assert unready(client) == "The model is not loaded yet."
    door.studio.models["stub"]
    with door.studio.gate.event():
        assert client.get("/readyz").json() == {"model": "stub", "busy": 1, "trouble": ""}
    door.studio.gate.draining = True
    assert unready(client) == "The server is restarting."


def unready(client: TestClient) -> str:
    """Why the server is not ready, while it lives."""
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    return answer.json()["trouble"]


def test_the_default_model_is_asked_once_a_minute_whether_it_answers(door, clock):
    client, stub = TestClient(door), door.studio.models["stub"]
    assert [client.get("/readyz").status_code for _ in range(3)] == [200] * 3
    assert stub.calls == ["encode", "match"]
    stub.work = lambda text: 1 / 0
    assert client.get("/readyz").status_code == 200  # by the control of this minute
    clock[0] += limits.CONTROL_SECONDS + 1
    assert [unready(client) for _ in range(3)] == ["The model did not answer a control."] * 3
    assert stub.calls == ["encode", "match", "encode"]
    del stub.work
    clock[0] += limits.CONTROL_SECONDS + 1
    assert client.get("/readyz").status_code == 200


def test_a_server_at_work_is_ready_until_a_call_hangs(door, clock):
    client, stub = TestClient(door), door.studio.models["stub"]
    with door.studio.gate.slot(threading.Event()):
        clock[0] += limits.MODEL_SECONDS - 1
        assert client.get("/readyz").status_code == 200 and stub.calls == []
        clock[0] += 2
        assert unready(client) == f"A call has been at work for over {limits.MODEL_SECONDS} s."
    assert client.get("/readyz").status_code == 200 and stub.calls == ["encode", "match"]


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/call/match", "/gradio_api/call/v2/match"])
def test_jobs_are_stamped_and_counted(path, door, clock):
    client = TestClient(door)
    assert [client.post(path).json() for _ in range(3)] == [{"stamped": True}] * 3
    refusal = client.post(path)
    assert refusal.status_code == 429 and refusal.headers["retry-after"] == "60"
    assert refusal.json()["detail"].endswith("[busy/quota]")
    assert "작업" in client.post(path, headers={"Accept-Language": "ko"}).json()["detail"]
    assert client.post(path, headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"}).status_code == 200
    clock[0] += 61
    assert client.post(path).status_code == 200


def test_what_is_no_job_is_not_counted(door, clock):
    client = TestClient(door)
    for _ in range(5):
        assert client.get("/gradio_api/call/match/event").json() == {"stamped": False}
        assert client.post("/gradio_api/upload").status_code == 200
    assert client.post(JOIN).status_code == 200


def test_without_a_quota_nobody_is_refused(clock):
    client = TestClient(Doorman(behind, Studio(Models(lambda name: StubPredictor()))))
    assert {client.post(JOIN).status_code for _ in range(50)} == {200}


def test_quiet_addresses_are_forgotten(door, clock, monkeypatch):
    monkeypatch.setattr(doorman, "ADDRESSES", 2)
    client = TestClient(door)
    for number in range(3):
        client.post(JOIN, headers={"X-Forwarded-For": f"10.0.0.{number}"})
    assert len(door._asked) == 3
    clock[0] += 61
    client.post(JOIN, headers={"X-Forwarded-For": "10.0.0.9"})
    assert list(door._asked) == ["10.0.0.9"]


def test_the_wait_that_is_told_follows_what_the_models_jobs_took():
    queue = MagicMock(process_time_per_fn=defaultdict(ProcessTime))
    queue.process_time_per_fn[MagicMock(concurrency_id="other")].add(1000)
    assert doorman.backlog(queue, 32) == 60  # nothing of the model has ended yet
    for seconds in (2, 4):
        queue.process_time_per_fn[MagicMock(concurrency_id="model")].add(seconds)
    assert doorman.backlog(queue, 32) == math.ceil(32 * 3 / limits.AT_ONCE)
