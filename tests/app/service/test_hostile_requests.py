"""Requests that no client of ours sends: methods, paths, headers and bodies. None may cost the
server its memory, its answer or its log's silence about what visitors sent."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import limits
from tests.app.serving import Running, call, stub_server, uploaded

SECONDS = 10  # within which every request is answered
MEGABYTE = 2**20
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=line"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The app over the stub in a process of its own, which a hostile request may break."""
    with stub_server(tmp_path_factory.mktemp("uploads"), 0) as found:
        yield found


@pytest.fixture(autouse=True)
def still_answers(running, picture):
    yield
    name, data = call(running.address, "match", [uploaded(picture), ["a"]])
    assert (name, data[0]["matches"][0]["text"]) == ("complete", "a")


@pytest.fixture(scope="module")
def picture(running, picture_file) -> Path:
    path = running.folder / "picture.png"
    path.write_bytes(picture_file.read_bytes())
    return path


def ask(
    running: Running,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Status and the first letters of what is answered; "" of a stream that goes on."""
    line = http.client.HTTPConnection(running.address[7:-1], timeout=SECONDS)
    try:
        line.request(method, path, body, headers or {})
        answer = line.getresponse()
        streamed = answer.getheader("content-type", "").startswith("text/event-stream")
        return answer.status, "" if streamed else answer.read(2000).decode(errors="replace")
    finally:
        line.close()


ROUTES = (
    *("call/match", "call/nope", "call/v2/match", "call/v2", "call", "call/match/event/more"),
    *("cancel", "queue/join", "queue/nope", "upload", "run/predict", "api/predict", "reset"),
    *("component_server", "stream/x", "stream/x/close", "process_recording", "vibe-edit", "nope"),
    *("run-history/connect", "file", "file=", "file=/etc/passwd", "file=//etc/passwd", ""),
)
SPELLINGS = ("{}", "{}/", "{}//", "/{}", "{}?a=b", "{}%20", "{}%00", "{}%ff", "{}%2f..%2fx")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NOPE")


@pytest.mark.parametrize("method", METHODS)
def test_any_method_on_any_path_is_answered(running, method):
    found = {
        path: ask(running, method, path, b"{}" if method == "POST" else None, JSON)
        for route, spelling in itertools.product(ROUTES, SPELLINGS)
        for path in ["/gradio_api/" + spelling.format(route)]
    }
    wrong = {
        path: said for path, said in found.items() if not (400 <= said[0] < 500 or said[0] == 307)
    }
    allowed = {"GET": {}, "POST": {"reset": 422}}.get(method, {})
    assert not {path: said for path, said in wrong.items() if path not in allowed}
    silent = [path for path, (status, text) in found.items() if status != 307 and not text]
    assert method == "HEAD" or not silent


BODIES = (
    *(
        b"",
        b"null",
        b"7",
        b'"x"',
        b"[]",
        b"[1]",
        b"{",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 9999,
    ),
    *(
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": "x"}',
        b'{"data": [NaN]}',
        b'{"data": [1e999]}',
    ),
    b'{"data": [], "fn_index": null, "session_hash": "a"}',
    b'{"data": [], "fn_index": 1e30, "session_hash": "a"}',
    b'{"data": [], "fn_index": "x", "session_hash": "a"}',
    b'{"data": [], "fn_index": 1.5, "session_hash": "a"}',
    b'{"data": [], "fn_index": true, "session_hash": "a"}',
    b'{"data": [], "fn_index": 0, "session_hash": 7}',
    b'{"data": [], "fn_index": 0, "session_hash": ["a"]}',
    b'{"data": [], "fn_index": 99999, "session_hash": "a", "batched": true, "event_id": {}}',
    b'{"session_hash": "a", "event_id": "\\ud800"}',
    b'{"media": null, "texts": null, "session_hash": {}}',
    b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, ["a"]]}',
    b'{"data": [{"path": "\\u0000", "meta": {"_type": "gradio.FileData"}}, ["a"]]}',
)
TYPES = (
    *("application/json", "text/plain", "application/x-www-form-urlencoded", "", "x", "a/b; c"),
    *("multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=line"),
    *("application/json; charset=utf-16", "image/png"),
)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "route", ["call/match", "call/v2/match", "queue/join", "cancel", "upload", "run/predict"]
)
def test_any_body_of_any_type_is_the_clients_fault(running, route, kind):
    headers = {"Content-Type": kind, "X-From-Page": "1"}
    for body in BODIES:
        status, text = ask(running, "POST", f"/gradio_api/{route}", body, headers)
        ignored = (route, status) == ("cancel", 200)  # a well-formed cancel of an unknown job
        assert (400 <= status < 500 and "detail" in text) or ignored, (body[:80], status, text)


def test_large_headers_are_refused(running):
    before = running.memory
    with socket.create_connection(place(running), timeout=SECONDS) as line:
        line.sendall(b"GET /config HTTP/1.1\r\nHost: a\r\n")
        try:
            for _ in range(64):
                line.sendall(b"X-Long: " + b"x" * MEGABYTE + b"\r\n")
        except OSError:  # the server has hung up
            return
        line.shutdown(socket.SHUT_WR)
        assert not line.recv(20).startswith(b"HTTP/1.1 2")
    assert running.memory - before < 20


def place(running: Running) -> tuple[str, int]:
    host, port = running.address[7:-1].split(":")
    return host, int(port)


FIELD = b'--line\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
TOO_LARGE = {
    "json": ("call/match", JSON, b'{"data": ["'),
    "by name": ("call/v2/match", JSON, b'{"media": "'),
    "of the page": ("queue/join", JSON, b'{"data": ["'),
    "past the queue": ("run/predict", JSON | {"X-From-Page": "1"}, b'{"data": ["'),
    "without a type": ("call/match", {}, b"x"),
    "a form to a call": ("call/match", FORM, FIELD),
    "a form to a cancel": ("cancel", FORM, FIELD),
    "a form field to upload": ("upload", FORM, FIELD),
    "nothing to upload": ("upload", FORM, b"x"),
    "to the login": ("../login", {"Content-Type": "application/x-www-form-urlencoded"}, b"a="),
    "a form to the login": ("../login", FORM, FIELD.replace(b"files", b"username")),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("megabytes", [60, pytest.param(300, marks=pytest.mark.load)])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_large_body_costs_no_memory(running, case, chunked, megabytes):
    route, headers, start = TOO_LARGE[case]
    before, most = running.memory, 0.0

    def chunks():
        nonlocal most
        yield start
        for k in range(megabytes):
            yield b"x" * MEGABYTE
            if k % 10 == 0:
                most = max(most, running.memory)

    length = {} if chunked else {"Content-Length": str(len(start) + megabytes * MEGABYTE)}
    try:
        status, text = ask(running, "POST", f"/gradio_api/{route}", chunks(), headers | length)
        assert status in (400, 413) and "detail" in text
    except (ConnectionError, TimeoutError, http.client.HTTPException):
        pass  # the server hung up while the body was being sent
    assert max(most, running.memory) - before < 30


@pytest.mark.parametrize("value", ["[]", "{}", "1", '"a"', '{"path": 1}'])
def test_a_megabyte_of_small_values_is_refused_unread(running, value):
    many = ",".join([value] * ((limits.BODY_MEGABYTES * MEGABYTE - 40) // (len(value) + 1)))
    body = '{"data": [[' + many + '], ["a"]]}'
    status, text = ask(running, "POST", "/gradio_api/call/match", body, JSON)
    assert status == 413 and str(limits.BODY_VALUES) in text


SECRET = "Geheimnis"


def secrets() -> list[tuple[str, str, Any, dict[str, str]]]:
    """Requests with what nobody may read in a log, in every place where it can stand."""
    bodies = [
        {"data": [{"path": f"/tmp/{SECRET}.png"}, [SECRET]]},
        {"data": [{"path": SECRET, "meta": {"_type": "gradio.FileData"}}, [SECRET]]},
        {"data": [SECRET, SECRET], "session_hash": SECRET, "fn_index": 0},
        {
            "data": [{SECRET: SECRET}, {SECRET: [SECRET]}],
            "session_hash": SECRET,
            "trigger_id": SECRET,
        },
        {"media": {"path": SECRET}, "texts": [SECRET], SECRET: SECRET},
        {"data": [SECRET] * 30, "fn_index": SECRET, "session_hash": SECRET, "event_data": SECRET},
        {"session_hash": SECRET, "event_id": SECRET},
    ]
    texts = [json.dumps(body) for body in bodies] + [SECRET, f'{{"{SECRET}"', f"\ud800{SECRET}"]
    posts = [
        ("POST", f"/gradio_api/{route}", text.encode(errors="surrogatepass"), JSON | page)
        for route in ("call/match", "call/v2/match", "queue/join", "cancel", "run/predict", "reset")
        for text in texts
        for page in ({}, {"X-From-Page": "1", "Cookie": SECRET})
    ]
    gets = [
        ("GET", f"/{route}", None, {"Accept-Language": SECRET, "Referer": SECRET, "Range": SECRET})
        for route in (
            *(SECRET, f"?{SECRET}={SECRET}", f"gradio_api/{SECRET}", f"gradio_api/call/{SECRET}/x"),
            *(
                f"gradio_api/file=/tmp/{SECRET}",
                f"gradio_api/file=http://{SECRET}/",
                f"static/{SECRET}",
            ),
            *(
                f"gradio_api/queue/data?session_hash={SECRET}",
                f"assets/{SECRET}",
                f"svelte/{SECRET}",
            ),
            *(f"gradio_api/call/match/{SECRET}", f"theme.css?{SECRET}", f"config?page={SECRET}"),
            *(
                f"gradio_api/upload_progress?upload_id={SECRET}",
                f"%ff{SECRET}",
                f"monitoring/{SECRET}",
            ),
        )
    ]
    part = f'--line\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n{SECRET}\r\n{{}}'
    forms = [
        ("POST", "/gradio_api/upload", part.format(name, file, end).encode(), FORM)
        for name in ("files", SECRET)
        for file in ("", f'; filename="{SECRET}"', f'; filename="../{SECRET}\\0<{SECRET}"')
        for end in ("--line--\r\n", f"--{SECRET}", "")
    ]
    return posts + gets + forms


def test_no_log_holds_what_visitors_sent(running, picture):
    folder = running.folder / SECRET
    folder.mkdir()
    for name, content in (
        ("a.png", picture.read_bytes()),
        ("b.png", b"no picture"),
        ("c.mp4", b""),
    ):
        (folder / name).write_bytes(content)
        for texts in ([SECRET], [7], SECRET, [SECRET * 1000], [SECRET + "\ud800"], None, []):
            body = json.dumps({"data": [uploaded(folder / name), texts], "session_hash": SECRET})
            status, said = ask(running, "POST", "/gradio_api/call/match", body, JSON)
            if status == 200:
                ask(running, "GET", f"/gradio_api/call/match/{json.loads(said)['event_id']}")
    for method, path, body, headers in secrets():
        ask(running, method, path, body, headers)
    with socket.create_connection(place(running), timeout=SECONDS) as line:
        line.sendall(f"{SECRET} / HTTP/9\r\n{SECRET}\r\n\r\n".encode())
    time.sleep(0.5)
    lines = [line for line in running.log.read_text().splitlines() if SECRET in line]
    assert lines == []
    assert os.path.getsize(running.log) < MEGABYTE
