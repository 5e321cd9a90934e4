"""The door: health, the stamp that a job gets, and how often one address may ask."""

from __future__ import annotations

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from app import doorman
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
    assert client.get("/healthz").json() == {"ready": False, "model": "stub", "busy": 0}
    assert client.get("/healthz").status_code == 200 and client.get("/readyz").status_code == 503
    door.studio.models["stub"]
    with door.studio.gate.event():
        assert client.get("/readyz").json() == {"ready": True, "model": "stub", "busy": 1}
    door.studio.gate.draining = True
    assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200


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
