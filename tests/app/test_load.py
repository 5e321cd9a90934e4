"""Crowds before the served app, each test small by default and at full size with `-m load`.

Answers under load must equal those of the stub when it is asked directly; a refusal must be one in
words; memory, files and the number of jobs at work stay bounded. Times are asserted at full size
alone, which wants a quiet machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from app import limits
from app.service.server import delete_old_files
from tests import bad_inputs
from tests.app.crowds import Tally, crowd, make_pictures, matched, percentile
from tests.app.serving import Running, call, join, post, result, stub_server, uploaded

SIZES = [pytest.param(False, id="small"), pytest.param(True, id="full", marks=pytest.mark.load)]
at_both_sizes = pytest.mark.parametrize("full", SIZES)
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="memory and open files are read from /proc"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with stub_server(tmp_path_factory.mktemp("uploads")) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(running) -> list[Path]:
    return make_pictures(running.folder)


@linux
@at_both_sizes
def test_l1_one_visitor_after_the_other_finds_a_server_that_does_not_grow(running, pictures, full):
    crowd(running, pictures, 1, 200 if full else len(pictures))  # until caches and pools are filled
    before = running.memory
    tally = crowd(running, pictures, 1, 100 if full else 15)
    assert not tally.refused
    assert running.memory - before < 20
    if full:
        assert percentile(tally.answered, 95) <= 1.15 * statistics.median(tally.answered)


@pytest.mark.parametrize(
    "users, calls",
    [
        (8, 24),
        pytest.param(8, 400, marks=pytest.mark.load),
        pytest.param(32, 400, marks=pytest.mark.load),
    ],
)
def test_l2_as_many_as_the_queue_holds_are_all_answered(running, pictures, users, calls):
    alone = statistics.median(crowd(running, pictures, 1, 5).answered)
    tally = crowd(running, pictures, users, calls)
    assert not tally.refused and max(running.at_work()) == 1
    if calls == 400:
        assert percentile(tally.answered, 95) <= (users / 1 + 1) * alone + 0.5


@linux
@at_both_sizes
def test_l3_more_than_the_queue_holds_are_answered_or_refused_and_none_is_lost(
    running, pictures, full
):
    before = running.memory
    tally = crowd(running, pictures, *((128, 1000) if full else (48, 96)))
    assert tally.answered and tally.refused
    assert running.memory - before < 200
    if full:
        assert max(tally.refused) < 1


def test_one_session_may_have_five_jobs_and_leaves_the_rest_of_the_queue_to_others(
    running, pictures
):
    match = next(fn["id"] for fn in config(running)["dependencies"] if fn["api_name"] == "match")

    def ask(session: str) -> str:
        try:
            data = [uploaded(pictures[0]), ["held by one"]]
            post(
                running.address,
                "queue/join",
                {"data": data, "fn_index": match, "session_hash": session},
            )
        except urllib.error.HTTPError as refusal:
            return f"{refusal.code} {json.loads(refusal.read())['detail'][-12:]}"
        return "accepted"

    with running.holding("held by one"), ThreadPoolExecutor(8) as pool:
        told = sorted(pool.map(ask, ["one"] * 8))
        assert (
            told
            == ["429 [busy/quota]"] * (8 - limits.JOBS_A_SESSION)
            + ["accepted"] * limits.JOBS_A_SESSION
        )
        assert ask("another") == "accepted"
        assert ask("one") != "accepted"
    running.wait_until(lambda: ask("one") == "accepted")


@at_both_sizes
def test_l5_cancelled_jobs_free_their_place_and_those_that_waited_never_begin(
    running, pictures, full
):
    match = next(fn["id"] for fn in config(running)["dependencies"] if fn["api_name"] == "match")
    for k in range(100 if full else 3):
        with running.holding(f"held {k}"):
            first = join(running.address, "match", [uploaded(pictures[0]), [f"held {k}"]])
            running.wait_until(lambda k=k: running.at_work(f"held {k}"))
            texts = [*["waiting"] * limits.AT_ONCE, "dropped"]
            *waiting, dropped = (
                join(running.address, "match", [uploaded(pictures[0]), [text]]) for text in texts
            )
            with contextlib.suppress(OSError):  # a visitor who leaves before the answer
                urllib.request.urlopen(
                    f"{running.address}gradio_api/call/match/{dropped}", timeout=0.05
                ).close()
            for event in (*waiting, first):
                post(
                    running.address,
                    "cancel",
                    {"session_hash": event, "fn_index": match, "event_id": event},
                )
    start = time.perf_counter()
    Tally().visit(running, pictures[1], "after")
    if full:
        assert time.perf_counter() - start < 2
    assert running.at_work("waiting") == [] and max(running.at_work()) == 1


def config(running: Running) -> dict:
    with urllib.request.urlopen(running.address + "config") as answer:
        return json.loads(answer.read())


@at_both_sizes
def test_l6_bad_files_among_good_ones_hurt_nobody(running, pictures, full):
    bad = running.folder / "bad.png"
    bad.write_bytes(b"%PDF-1.4 not a picture")

    def visit(k: int) -> None:
        if k % 10:
            tally.visit(running, pictures[k % len(pictures)], f"beside bad ones {k}")
        else:
            name, data = call(running.address, "match", [uploaded(bad), ["a"]])
            assert name == "error" and "[image/format]" in data["error"]

    tally = Tally()
    users, calls = (32, 400) if full else (8, 20)
    with ThreadPoolExecutor(users) as pool:
        list(pool.map(visit, range(calls)))
    assert len(tally.answered) == 0.9 * calls


@linux
@at_both_sizes
def test_l7_bombs_hurt_nobody(running, pictures, full):
    """An image of 169 megapixels or a 4K video of twenty minutes every second, beside eight who
    ask."""
    bombs = [running.folder / "bomb.png", running.folder / "bomb.mp4"]
    bombs[0].write_bytes(bad_inputs.png(13_000, 13_000, 8, 6))
    bombs[1].write_bytes(
        bad_inputs.endless(3840, 2160, 36_000, 30) if full else bad_inputs.claiming(10**7)
    )
    before, quiet = running.memory, crowd(running, pictures, 8, 240 if full else 8)
    stop, refused = threading.Event(), []

    def throw() -> None:
        while not stop.wait(1 if full else 0.1):
            name, data = call(running.address, "match", [uploaded(bombs[len(refused) % 2]), ["a"]])
            refused.append((name, data["error"]))

    with ThreadPoolExecutor(1) as thrower:
        thrown = thrower.submit(throw)
        until = time.monotonic() + (60 if full else 1)
        tallies = [crowd(running, pictures, 8, 8)]
        while time.monotonic() < until or not refused:
            tallies.append(crowd(running, pictures, 8, 8))
        stop.set()
        thrown.result()
    assert all(
        name == "error" and ("[image/" in text or "[video/" in text) for name, text in refused
    )
    assert not any(tally.refused for tally in tallies)
    assert running.memory - before < 600
    if full:
        beside = [seconds for tally in tallies for seconds in tally.answered]
        assert percentile(beside, 95) < 2 * percentile(quiet.answered, 95)


@linux
@at_both_sizes
def test_l8_aborted_and_slow_uploads_leave_nothing(running, pictures, full):
    aborted, slow = (50, 20) if full else (5, 2)
    crowd(running, pictures, 2, 4)
    files = running.files
    with ThreadPoolExecutor(slow) as pool:
        uploads = [pool.submit(upload_slowly, running) for _ in range(slow)]
        for _ in range(aborted):
            with upload(running, 10**6) as line:
                line.sendall(bytes(10_000))
        assert all(upload.result().startswith(b"HTTP/1.1 200") for upload in uploads)
    running.wait_until(lambda: running.files <= files + 2, 30)
    later = time.time() + limits.TEMP_SECONDS + 60
    for kept in pictures:
        os.utime(kept, (later, later))
    assert delete_old_files(running.folder, later)
    assert {path for path in running.folder.rglob("*") if path.is_file()} == set(pictures)


HEAD = (
    b'--line\r\nContent-Disposition: form-data; name="files"; '
    b'filename="p.png"\r\nContent-Type: '
    b"image/png\r\n\r\n"
)
TAIL = b"\r\n--line--\r\n"


def upload(running: Running, size: int) -> socket.socket:
    """A connection on which an upload of `size` bytes has begun."""
    host, port = running.address.removeprefix("http://").strip("/").split(":")
    line = socket.create_connection((host, int(port)), timeout=60)
    length = len(HEAD) + size + len(TAIL)
    line.sendall(
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=line\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    line.sendall(HEAD)
    return line


def upload_slowly(running: Running) -> bytes:
    """Twenty bytes in a second."""
    with upload(running, 20) as line:
        for _ in range(20):
            line.sendall(b"x")
            time.sleep(0.05)
        line.sendall(TAIL)
        return line.recv(1000)


def test_l13_the_same_file_at_once_with_different_questions(running, pictures):
    """Same bytes, same name, same place: every visitor has the answer to the own question."""
    tally = Tally()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: tally.visit(running, pictures[0], f"question {k}"), range(16)))
    assert len(tally.answered) == 16


@pytest.mark.parametrize("waiting", [8, pytest.param(limits.QUEUE, marks=pytest.mark.load)])
def test_l10_a_signal_finishes_what_runs_and_tells_those_who_wait(tmp_path, request, waiting):
    """Of this file's own server in the short run, so that this comes last."""
    with contextlib.ExitStack() as stack:
        if waiting == limits.QUEUE:
            running = stack.enter_context(stub_server(tmp_path))
        else:
            running = request.getfixturevalue("running")
        pool = stack.enter_context(ThreadPoolExecutor(waiting + 1))
        picture = running.folder / "last.png"
        Image.effect_noise((60, 40), 50).convert("RGB").save(picture)
        with running.holding("held at last"):
            first = pool.submit(
                call, running.address, "match", [uploaded(picture), ["held at last"]]
            )
            running.wait_until(lambda: running.at_work("held at last"))
            events = [
                join(running.address, "match", [uploaded(picture), [f"text {k}"]])
                for k in range(waiting)
            ]
            rest = [pool.submit(result, running.address, "match", event) for event in events]
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        name, data = first.result(30)
        assert name == "complete" and data[0]["matches"] == matched(picture, "held at last")
        told = [one.result(30) for one in rest]
        assert running.process.wait(30) == 0
    begun = [data for name, data in told if name == "complete"]
    assert len(begun) < limits.AT_ONCE  # those that were let in before the signal
    assert all("[busy/draining]" in data["error"] for name, data in told if name == "error")
