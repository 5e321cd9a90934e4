"""The app as it is deployed: a server, real clients, hostile requests, many visitors, a signal to stop."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(served) -> Client:
    return Client(served.address, verbose=False)


def test_every_endpoint_answers(client, picture_file):
    media = handle_file(str(picture_file))
    assert client.predict(media=media, num_captions=2, api_name="/caption")["captions"][1]["text"] == "a car"
    assert client.predict(media=media, question="what?", api_name="/ask")["answers"][0]["text"] == "red"
    found = client.predict(media=media, phrases=["a dog", "a unicorn"], api_name="/ground")["groundings"]
    assert [g["verdict"] for g in found][1] == "absent" and len(found[0]["box_xyxy"]) == 4
    maps = client.predict(media=media, text="a red car", api_name="/explain")["maps"]
    assert len(maps) == 3 and len(maps[0]) == len(maps[0][0]) == 8
    ranked = client.predict(media=media, texts=["a", "b", "c"], api_name="/match")["matches"]
    assert sorted((m["probability"] for m in ranked), reverse=True) == [m["probability"] for m in ranked]


def test_clips_come_through_the_same_endpoints(client, clip_file):
    found = client.predict(media=handle_file(str(clip_file)), phrases=["a dog"], api_name="/ground")
    assert found["groundings"][0]["frame"] == 2


@pytest.mark.parametrize(
    "endpoint, arguments, code",
    [
        ("/ask", {"question": ""}, "text/empty"),
        ("/ask", {"question": "x" * 5000}, "text/long"),
        ("/ask", {"question": 7}, "text/type"),
        ("/ask", {"question": "what?", "top_k": 10**9}, "param/range"),
        ("/ground", {"phrases": []}, "text/empty"),
        ("/ground", {"phrases": ["a"] * 11}, "text/long"),
        ("/ground", {"phrases": ["a", None, {}]}, "text/type"),
        ("/match", {"texts": ["\u200b"]}, "text/empty"),
        ("/caption", {"num_beams": -1}, "param/range"),
        ("/caption", {"max_new_tokens": 1.5}, "param/range"),
        ("/explain", {"text": " "}, "text/empty"),
    ],
)
def test_bad_arguments_get_a_sentence_and_a_code(client, picture_file, endpoint, arguments, code):
    with pytest.raises(Exception) as refusal:
        client.predict(media=handle_file(str(picture_file)), **arguments, api_name=endpoint)
    assert f"[{code}]" in str(refusal.value) and "Traceback" not in str(refusal.value)


def call(address: str, endpoint: str, data: list) -> tuple[str, str]:
    """Name and data of the last server-sent event of a raw call."""
    body = json.dumps({"data": data}).encode()
    request = urllib.request.Request(f"{address}gradio_api/call/{endpoint}", body, {"Content-Type": "application/json"})
    event = json.loads(urllib.request.urlopen(request, timeout=20).read())["event_id"]
    stream = urllib.request.urlopen(f"{address}gradio_api/call/{endpoint}/{event}", timeout=20).read().decode()
    lines = [line.split(": ", 1)[1] for line in stream.strip().split("\n") if ": " in line]
    return lines[-2], lines[-1]


@pytest.fixture
def listener():
    """A web server that must never be asked."""
    hits = []

    class Counter(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", hits
    server.shutdown()


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../etc/passwd", "/proc/self/environ", "file:///etc/passwd", str(ROOT / "app.py"), "", None, 7, {}],
)
def test_client_named_paths_are_never_read(served, path):
    name, data = call(served.address, "match", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["a"]])
    assert name == "error" and "root:" not in data


SPELLINGS = ("{0}", "localhost:{1}", "2130706433:{1}", "0x7f000001:{1}", "[::ffff:127.0.0.1]:{1}", "a@{0}")


@pytest.mark.parametrize("host", SPELLINGS)
def test_client_named_addresses_are_never_fetched(served, listener, host):
    address, hits = listener
    url = "http://" + host.format(address, address.split(":")[1]) + "/x.png"
    for field in ({"path": url}, {"path": "x.png", "url": url}, {"url": url}):
        name, _ = call(served.address, "match", [field | {"meta": {"_type": "gradio.FileData"}}, ["a"]])
        assert name == "error"
    assert hits == []


@pytest.mark.parametrize("media", [None, "x.png", [], {"no": "path"}])
def test_missing_media_is_told(served, media):
    name, _ = call(served.address, "match", [media, ["a"]])
    assert name == "error"


def test_phone_photo_through_the_client(client, upload_folder):
    upright = Image.effect_noise((90, 140), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, twin = upload_folder / "t.png", upload_folder / "u.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    upright.save(twin)
    boxes = [
        client.predict(media=handle_file(str(path)), phrases=["a dog"], api_name="/ground")["groundings"][0]["box_xyxy"]
        for path in (turned, twin)
    ]
    assert boxes[0] == boxes[1]


def test_twenty_visitors_get_their_own_answers(served, picture_file):
    """Every answer is right or a clear refusal; none is lost or mixed up."""

    def visit(k: int) -> str:
        text = f"text number {k}"
        try:
            found = Client(served.address, verbose=False).predict(
                media=handle_file(str(picture_file)), texts=[text], api_name="/match"
            )
        except Exception as refusal:
            assert "queue" in str(refusal).lower() or "busy" in str(refusal).lower()
            return "busy"
        assert found["matches"][0]["text"] == text
        return "right"

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(visit, range(20)))
    assert outcomes.count("right") >= 1
    assert served.stub.most_at_once == 1


def test_page_arrives_with_a_finished_example(served):
    config = json.loads(urllib.request.urlopen(f"{served.address}config").read())
    by_id = {block["props"].get("elem_id"): block["props"] for block in config["components"]}
    assert by_id["canvas"]["value"]["src"].startswith("data:image/png;base64,")
    assert "verdict" in by_id["findings"]["value"]
    assert not config.get("enable_monitoring")


SERVER = """
import sys, threading
sys.path.insert(0, {root!r})
from app import build_demo
from app.server import serve
from tests.app.stub import StubPredictor


class Slow(StubPredictor):
    def match(self, *args, **options):
        print("at work", flush=True)
        return super().match(*args, **options)


demo = build_demo(lambda name: Slow(delay=1.0), ("stub",), stored={{}})
serve(demo, port={port})
"""


def test_sigterm_finishes_what_runs_and_exits_cleanly(tmp_path, picture_file):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(root=str(ROOT), port=port)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        client = connect(f"http://127.0.0.1:{port}/")
        job = client.submit(media=handle_file(str(picture_file)), texts=["a"], api_name="/match")
        assert any("at work" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGTERM)
        assert job.result(timeout=20)["matches"][0]["text"] == "a"
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def connect(address: str) -> Client:
    """A client of a server that is just starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return Client(address, verbose=False)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def test_error_text_is_ours(served, upload_folder):
    path = upload_folder / "cut.jpg"
    Image.effect_noise((200, 200), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(Exception) as refusal:
        Client(served.address, verbose=False).predict(media=handle_file(str(path)), texts=["a"], api_name="/match")
    message = str(refusal.value)
    assert "[image/" in message and str(upload_folder) not in message and "0x" not in message
    assert len(message) <= 300
