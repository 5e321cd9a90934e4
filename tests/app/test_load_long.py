"""Loads that need time: an open loop, killed workers, thousands of sessions that never read, a
soak. Small by default and at full size with `-m load`, which prints figures."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app import limits
from benchmarks import processes, soak
from benchmarks.serving import HttpClient
from tests.app.crowds import Tally, crowd, make_pictures, matched, percentile
from tests.app.serving import Running, call, join, post, result, stub_server, uploaded

SIZES = [pytest.param(False, id="small"), pytest.param(True, id="full", marks=pytest.mark.load)]
at_both_sizes = pytest.mark.parametrize("full", SIZES)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes and their memory are read from /proc"
)
DELAY = 0.05  # seconds of every call to the stub: a match encodes and compares


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with stub_server(tmp_path_factory.mktemp("uploads"), DELAY) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(running) -> list[Path]:
    return make_pictures(running.folder)


@pytest.fixture
def say(capsys, full):
    """Print a figure at once, at full size."""

    def say(text: str) -> None:
        with capsys.disabled() if full else contextlib.nullcontext():
            print(f"\n{text} (load average {os.getloadavg()[0]:.1f})", flush=True)

    return say


def open_loop(running: Running, pictures: list[Path], rate: float, seconds: float) -> list[Tally]:
    """Calls at this rate, whatever the server does: what the first and the second half met."""
    halves = [Tally(), Tally()]
    calls = int(rate * seconds)
    begun = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        for k in range(calls):
            time.sleep(max(0.0, begun + k / rate - time.monotonic()))
            picture, tally = pictures[k % len(pictures)], halves[2 * k // calls]
            pool.submit(tally.visit, running, picture, f"open {k}")
    assert sum(len(half.answered) + len(half.refused) for half in halves) == calls
    return halves


@at_both_sizes
def test_l4_beyond_its_capacity_the_server_refuses_and_stays_as_fast(running, pictures, full, say):
    seconds = 200 if full else 1
    alone = statistics.median(crowd(running, pictures, 1, 5).answered)
    started = time.monotonic()
    asked = 200 if full else 8
    crowd(running, pictures, limits.AT_ONCE, asked)
    capacity = asked / (time.monotonic() - started)
    for share in (0.5, 0.9, 1.5):
        first, second = open_loop(running, pictures, share * capacity, seconds)
        answered, refused = first.answered + second.answered, first.refused + second.refused
        say(
            f"L4, {share:.0%} of {capacity:.1f}/s for {seconds} s: {len(answered)} answered, "
            f"{len(refused)} refused, median {statistics.median(answered):.2f} s, "
            f"p99 {percentile(answered, 99):.2f} s, alone {alone:.2f} s"
        )
        assert answered
        if full and share < 1:
            assert not refused and percentile(answered, 99) < 5 * alone
        if full and share > 1:
            assert refused and max(refused) < 1
            later = statistics.median(second.answered)
            assert later <= 1.25 * statistics.median(first.answered[limits.QUEUE :])


@at_both_sizes
def test_l9_a_killed_decoder_costs_its_job_alone(running, pictures, full, say):
    """While eight ask, one of the processes that decode is killed, at full size every minute."""
    stop, met, waits = threading.Event(), [], []

    def visit(k: int) -> None:
        chance = random.Random(k)
        while not stop.is_set():
            text, picture = f"beside a kill {chance.random()}", chance.choice(pictures)
            name, data = call(running.address, "match", [uploaded(picture), [text]])
            if name == "complete":
                assert data[0]["matches"] == matched(picture, text)
            met.append("answered" if name == "complete" else data["error"])

    with ThreadPoolExecutor(8) as pool:
        visitors = [pool.submit(visit, k) for k in range(8)]
        for _ in range(5 if full else 2):
            time.sleep(60 if full else 1)
            for child in processes.children(running.process.pid):
                os.kill(child, signal.SIGKILL)
            start = time.perf_counter()
            Tally().visit(running, pictures[0], "after the kill")
            waits.append(time.perf_counter() - start)
        stop.set()
        for visitor in visitors:
            visitor.result(60)
    errors = [text for text in met if text != "answered"]
    say(f"L9: {len(met)} calls, {len(errors)} hit by a kill; next answer after {max(waits):.2f} s")
    assert all(text.endswith("[job/crashed]") for text in errors)
    assert len(errors) <= len(waits) * len(processes.children(running.process.pid))
    assert len(met) > len(errors)


def test_l9_a_call_that_breaks_the_model_costs_its_job_alone(running, pictures):
    for k in range(3):
        name, data = call(running.address, "match", [uploaded(pictures[k]), ["broken"]])
        assert name == "error" and data["error"].endswith("[job/crashed]")
        Tally().visit(running, pictures[k], "after the crash")


@at_both_sizes
def test_l12_sessions_that_never_read_take_nobodys_result(running, pictures, full, say):
    sessions, turns = (3000, 20) if full else (40, 4)
    match = next(k for k, fn in enumerate(functions(running)) if fn["api_name"] == "match")
    before, begun, tally = running.memory, time.monotonic(), Tally()
    for turn in range(turns):
        early = join(running.address, "match", [uploaded(pictures[0]), [f"early {turn}"]])
        for k in range(sessions // turns):
            session = f"session {turn} {k}"
            never_read(running, match, pictures[k % len(pictures)], session)
        name, data = result(running.address, "match", early)
        assert name == "complete" and data[0]["matches"] == matched(pictures[0], f"early {turn}")
        running.wait_until(lambda: room(running))
        tally.visit(running, pictures[1], f"late {turn}")
    grown = running.memory - before
    say(
        f"L12: {sessions} sessions that never read in {time.monotonic() - begun:.0f} s; "
        f"{2 * turns} others all answered; memory +{grown:.0f} MiB"
    )
    assert len(tally.answered) == turns
    assert grown < 200


def room(running: Running) -> bool:
    """Whether the queue has room."""
    with urllib.request.urlopen(f"{running.address}gradio_api/queue/status", timeout=60) as answer:
        return json.loads(answer.read())["queue_size"] < limits.QUEUE // 2


def functions(running: Running) -> list[dict]:
    import urllib.request

    with urllib.request.urlopen(running.address + "config", timeout=60) as answer:
        return json.loads(answer.read())["dependencies"]


def never_read(running: Running, function: int, picture: Path, text: str) -> None:
    """A job of a session that nobody will read, as soon as there is room for it."""
    body = {"data": [uploaded(picture), [text]], "fn_index": function, "session_hash": text}
    deadline = time.monotonic() + 60
    while True:
        try:
            post(running.address, "queue/join", body)
            return
        except urllib.error.HTTPError as refusal:
            assert refusal.code == 503 and time.monotonic() < deadline
            time.sleep(0.05)


def test_l11_the_soak_counts_what_visitors_meet(running, pictures, tmp_path, monkeypatch):
    """The benchmark that soaks the app for hours, for some seconds before the stub."""
    monkeypatch.setattr(soak, "CALLS", {"match": {"texts": ["a"]}, "caption": {}, "ask": {
        "question": "what?"}})  # fmt: skip
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    client = HttpClient(running.address)
    visits = soak.Visits(client, running.address, pictures, pictures[:1], [broken])
    for k in range(30):
        visits.come(random.Random(k))
    samples = [(hours, *soak.sample(running.process.pid, running.folder)) for hours in (0.0, 1.0)]
    assert visits.unexplained == {}
    assert {"answered", "left before the answer", "told that the file cannot be read"} <= set(
        visits.met
    )
    rows = {row.name: row for row in soak.report(visits, samples, 1.0, 0.0)}
    assert rows["visits: unexplained"].verdict == "pass"
    assert abs(rows["memory: growth an hour after the warm-up"].value) < 100
