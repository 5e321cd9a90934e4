"""Health checks, the timestamp of a job, the rate limit of an address, admission to the queue."""

from __future__ import annotations

import asyncio
import math
import os
import runpy
import subprocess
import sys
import threading
from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest
from gradio.queueing import ProcessTime
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from app import limits
from app.service import admission, middleware, server
from app.service.admission import admit
from app.service.middleware import HealthCheck, RateLimit, address
from app.service.models import Models
from app.service.runner import Runner
from tests.app.serving import ROOT
from tests.app.stub import StubPredictor

JOIN = "/gradio_api/queue/join"


async def behind(scope, receive, send):
    """The app behind the middleware: tells whether the timestamp is there."""
    await JSONResponse({"stamped": "asked" in scope.get("state", {})})(scope, receive, send)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(middleware.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def health() -> HealthCheck:
    return HealthCheck(behind, Runner(Models(lambda name: StubPredictor(), ("stub",)), workers=1))


@pytest.fixture
def limited() -> RateLimit:
    return RateLimit(behind, quota=3)


def test_health_tells_the_truth(health):
    client = TestClient(health)
    assert client.get("/healthz").json() == {"model": "stub", "busy": 0}
    assert unready(client) == "The model is not loaded yet."
    health.runner.models["stub"]
    with health.runner.jobs.event():
        assert client.get("/readyz").json() == {"model": "stub", "busy": 1, "trouble": ""}
    health.runner.jobs.draining = True
    assert unready(client) == "The server is restarting."


def unready(client: TestClient) -> str:
    """Why the server is not ready, while it lives."""
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    return answer.json()["trouble"]


def test_the_default_model_is_asked_once_a_minute_whether_it_answers(health, clock):
    client, stub = TestClient(health), health.runner.models["stub"]
    assert [client.get("/readyz").status_code for _ in range(3)] == [200] * 3
    assert stub.calls == ["encode", "match"]
    stub.work = lambda text: 1 / 0
    assert client.get("/readyz").status_code == 200  # by the health check of this minute
    clock[0] += limits.HEALTH_CHECK_SECONDS + 1
    assert [unready(client) for _ in range(3)] == ["The model did not answer a health check."] * 3
    assert stub.calls == ["encode", "match", "encode"]
    del stub.work
    clock[0] += limits.HEALTH_CHECK_SECONDS + 1
    assert client.get("/readyz").status_code == 200


def test_a_server_at_work_is_ready_until_a_call_hangs(health, clock):
    client, stub = TestClient(health), health.runner.models["stub"]
    with health.runner.jobs.worker(threading.Event()):
        clock[0] += limits.MODEL_SECONDS - 1
        assert client.get("/readyz").status_code == 200 and stub.calls == []
        clock[0] += 2
        assert unready(client) == f"A call has been running for over {limits.MODEL_SECONDS} s."
    assert client.get("/readyz").status_code == 200 and stub.calls == ["encode", "match"]


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/call/match", "/gradio_api/call/v2/match"])
def test_jobs_are_stamped_and_counted(path, limited, clock):
    client = TestClient(limited)
    assert [client.post(path).json() for _ in range(3)] == [{"stamped": True}] * 3
    refusal = client.post(path)
    assert refusal.status_code == 429 and refusal.headers["retry-after"] == "60"
    assert refusal.json()["detail"].endswith("[busy/quota]")
    assert "작업" in client.post(path, headers={"Accept-Language": "ko"}).json()["detail"]
    assert client.post(path, headers={"X-Forwarded-For": "11.0.0.1, 10.0.0.2"}).status_code == 200
    clock[0] += 61
    assert client.post(path).status_code == 200


def test_what_is_no_job_is_not_counted(limited, clock):
    client = TestClient(limited)
    for _ in range(5):
        assert client.get("/gradio_api/call/match/event").json() == {"stamped": False}
        assert client.post("/gradio_api/upload").status_code == 200
    assert client.post(JOIN).status_code == 200


def test_without_a_quota_nobody_is_refused(clock):
    client = TestClient(RateLimit(behind))
    assert {client.post(JOIN).status_code for _ in range(50)} == {200}


def test_quiet_addresses_are_forgotten(limited, clock, monkeypatch):
    monkeypatch.setattr(middleware, "ADDRESSES", 2)
    client = TestClient(limited)
    for number in range(3):
        client.post(JOIN, headers={"X-Forwarded-For": f"11.0.0.{number}"})
    assert len(limited._asked) == 3
    clock[0] += 61
    client.post(JOIN, headers={"X-Forwarded-For": "11.0.0.9"})
    assert list(limited._asked) == ["11.0.0.9"]


@pytest.mark.parametrize(
    "peer, forwarded, who",
    [
        ("10.0.0.1", "11.0.0.1", "11.0.0.1"),
        ("10.0.0.1", "made up, 12.0.0.1, 11.0.0.1", "11.0.0.1"),  # what the client sent comes first
        ("10.0.0.1", "11.0.0.1, 10.0.0.2", "11.0.0.1"),  # another proxy of the host's own
        ("11.0.0.1", "12.0.0.1", "11.0.0.1"),  # no proxy at all: the header is the client's
        ("192.168.0.7", "", "192.168.0.7"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
    ],
)
def test_nobody_names_the_address_that_is_counted(peer, forwarded, who):
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert address({"client": (peer, 50000), "headers": headers}) == who


@pytest.mark.parametrize(
    "environment, share, public",
    [
        ({}, False, False),
        ({"GRADIO_SERVER_NAME": "localhost"}, False, False),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, False, True),
        ({"GRADIO_SERVER_NAME": "192.168.0.7"}, False, True),
        ({"SYSTEM": "spaces", "SPACE_ID": "a/b"}, False, True),
        ({}, True, True),
    ],
)
def test_where_strangers_come_each_address_has_a_quota(environment, share, public, monkeypatch):
    for name in ("GRADIO_SERVER_NAME", "SYSTEM", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    demo = MagicMock()
    demo.launch.return_value = None, "address", None
    assert server.start(demo, share=share) == "address"
    *_, limit = demo.launch.call_args.kwargs["app_kwargs"]["middleware"]
    assert limit.kwargs["quota"] == (limits.JOBS_A_MINUTE if public else None)


@pytest.mark.parametrize("name, choice", [("127.0.0.1", True), ("0.0.0.0", False)])
def test_strangers_choose_among_the_offered_models_alone(name, choice, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", name)
    assert runpy.run_path(str(ROOT / "app.py"))["demo"].runner.models.open_choice is choice


def test_the_app_has_an_upload_folder_of_its_own(tmp_path):
    """Before Gradio is imported, as some of its modules take the folder then; it is gone when the
    app has ended."""
    environment = {
        name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"
    } | {"TMPDIR": str(tmp_path)}
    ask = (
        "import app, gradio.utils as u, gradio.route_utils as r; print(r.DEFAULT_TEMP_DIR, "
        "u.get_upload_folder())"
    )
    told = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = told.stdout.split()
    assert (
        first == second
        and first.startswith(str(tmp_path / "x2vlm-"))
        and not list(tmp_path.glob("x2vlm-*"))
    )


def test_the_session_that_all_mcp_clients_share_is_nobodys_own():
    event = SimpleNamespace(session_hash="shared")
    queue = MagicMock(
        max_size=limits.QUEUE,
        push=AsyncMock(return_value=(True, "in", "success")),
        __len__=lambda self: 0,
    )
    queue.event_ids_to_events = dict.fromkeys(range(limits.JOBS_A_SESSION), event)
    queue.blocks.endpoints, queue.blocks.fns = {}, {0: MagicMock(inputs=[])}
    admit(queue)

    def ask() -> str:
        return asyncio.run(
            queue.push(
                SimpleNamespace(session_hash="shared", data=[], fn_index=0, simple_format=False),
                MagicMock(headers={}),
                None,
            )
        )

    for server_object in (None, SimpleNamespace(_client_instance=None)):
        queue.blocks.mcp_server_obj = server_object
        with pytest.raises(HTTPException, match="busy/quota"):
            ask()
    queue.blocks.mcp_server_obj = SimpleNamespace(
        _client_instance=SimpleNamespace(session_hash="shared")
    )
    assert ask() == (True, "in", "success")


def test_the_wait_that_is_told_follows_what_the_models_jobs_took():
    queue = MagicMock(process_time_per_fn=defaultdict(ProcessTime))
    queue.process_time_per_fn[MagicMock(concurrency_id="other")].add(1000)
    assert admission.backlog(queue, 32) == 60  # nothing of the model has ended yet
    for seconds in (2, 4):
        queue.process_time_per_fn[MagicMock(concurrency_id="model")].add(seconds)
    assert admission.backlog(queue, 32) == math.ceil(32 * 3 / limits.AT_ONCE)
