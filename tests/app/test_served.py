"""The app as it is deployed: a server, real clients, hostile requests, many visitors, a signal to
stop."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from app import limits
from tests.app.serving import call, post, uploaded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(served) -> Client:
    return Client(served.address, verbose=False)


def test_every_endpoint_answers(client, picture_file):
    media = handle_file(str(picture_file))
    assert (
        client.predict(media=media, num_captions=2, api_name="/caption")["captions"][1]["text"]
        == "a car"
    )
    assert (
        client.predict(media=media, question="what?", api_name="/ask")["answers"][0]["text"]
        == "red"
    )
    found = client.predict(media=media, phrases=["a dog", "a unicorn"], api_name="/ground")[
        "groundings"
    ]
    assert [g["verdict"] for g in found][1] == "absent" and len(found[0]["box_xyxy"]) == 4
    maps = client.predict(media=media, text="a red car", api_name="/explain")["maps"]
    assert len(maps) == 3 and len(maps[0]) == len(maps[0][0]) == 8
    ranked = client.predict(media=media, texts=["a", "b", "c"], api_name="/match")["matches"]
    assert sorted((m["probability"] for m in ranked), reverse=True) == [
        m["probability"] for m in ranked
    ]


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


@pytest.mark.parametrize(
    "given, used",
    [
        ({}, (0.3, 0.7)),
        ({"absent_below": 0.1}, (0.1, 0.7)),
        ({"found_from": 0.9}, (0.3, 0.9)),
        ({"absent_below": 0.2, "found_from": 0.4}, (0.2, 0.4)),
    ],
)
def test_a_cut_off_that_is_not_given_is_the_models_own(
    served, picture_file, monkeypatch, given, used
):
    asked, ground = [], served.stub.ground

    def noted(*args, **options):
        asked.append(options["thresholds"])
        return ground(*args, **options)

    monkeypatch.setattr(served.stub, "ground", noted)
    name, _ = call(
        served.address, "ground", {"media": uploaded(picture_file), "phrases": ["a dog"], **given}
    )
    assert name == "complete" and asked == [used]


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
    [
        "/etc/passwd",
        "../../../etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        str(ROOT / "app.py"),
        "",
        None,
        7,
        {},
    ],
)
def test_client_named_paths_are_never_read(served, path):
    said = refusal(served, "match", [named(path=path), ["a"]])
    assert said.endswith("[image/reference]" if isinstance(path, str) else "[image/empty]")


def named(**file: Any) -> dict[str, Any]:
    """A file that nobody uploaded, as a client would name it."""
    return file | {"meta": {"_type": "gradio.FileData"}}


def refusal(served, endpoint: str, data: list, **headers: str) -> str:
    """What is said to a call: at the door (400), about a field (422), or later."""
    try:
        name, told = call(served.address, endpoint, data, **headers)
    except urllib.error.HTTPError as error:
        detail = json.loads(error.read())["detail"]
        assert error.code in (400, 422)
        return (
            detail
            if error.code == 400
            else next(field["message"] for field in detail if not field["is_valid"])
        )
    assert name == "error"
    return told["error"]


SPELLINGS = (
    "{0}",
    "localhost:{1}",
    "2130706433:{1}",
    "0x7f000001:{1}",
    "[::ffff:127.0.0.1]:{1}",
    "a@{0}",
)


@pytest.mark.parametrize("host", SPELLINGS)
def test_client_named_addresses_are_never_fetched(served, listener, host):
    address, hits = listener
    url = "http://" + host.format(address, address.split(":")[1]) + "/x.png"
    for field in ({"path": url}, {"path": "x.png", "url": url}, {"url": url}):
        assert "[image/" in refusal(served, "match", [named(**field), ["a"]])
    assert hits == []


@pytest.mark.parametrize("media", [None, "x.png", [], {"no": "path"}])
def test_missing_media_is_told(served, media):
    assert refusal(served, "match", [media, ["a"]]).endswith("[image/empty]")


@pytest.mark.parametrize(
    "endpoint, names",
    [
        ("/caption", ()),
        ("/ask", ("question",)),
        ("/ground", ("phrases",)),
        ("/explain", ("text",)),
        ("/match", ("texts",)),
    ],
)
def test_what_is_missing_is_told_at_the_client_by_name(client, endpoint, names):
    with pytest.raises(ValidationError) as refused:
        client.predict(media=None, **dict.fromkeys(names), api_name=endpoint)
    told = str(refused.value)
    assert (
        told.startswith(f"{1 + len(names)} parameter(s) failed validation") and "- media: " in told
    )
    assert all(f"- {name}: " in told for name in names)


def test_phone_photos_through_the_client(client, phone_photos):
    found = [
        client.predict(media=handle_file(str(path)), phrases=["a dog"], api_name="/ground")[
            "groundings"
        ]
        for path in phone_photos.values()
    ]
    assert found == found[:1] * 4


def question_of(k: int) -> tuple[str, dict]:
    """Visitor k's endpoint and question."""
    return (
        ("caption", {"num_captions": 2}),
        ("ask", {"question": f"what is number {k}?"}),
        ("ground", {"phrases": [f"thing {k}", "a dog"]}),
        ("explain", {"text": f"thing number {k}"}),
        ("match", {"texts": [f"text {k}", "a dog"]}),
    )[k % 5]


def test_twenty_visitors_get_their_own_answers(served, upload_folder, monkeypatch):
    """All at once, each with an own image of the same name: as if each were alone."""
    pictures = [upload_folder / str(k) / "picture.png" for k in range(20)]
    for k, picture in enumerate(pictures):
        picture.parent.mkdir()
        Image.effect_noise((90, 60), 40 + k).convert("RGB").save(picture)

    def ask(k: int) -> tuple:
        endpoint, arguments = question_of(k)
        return call(served.address, endpoint, {"media": uploaded(pictures[k]), **arguments})

    alone = [ask(k) for k in range(20)]
    assert {name for name, _ in alone} == {"complete"}
    assert len({json.dumps(data) for _, data in alone}) == 20
    monkeypatch.setattr(served.stub, "delay", 0.02)
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == alone  # the queue holds 32, so nobody is refused
    assert served.stub.most_at_once == 1


def test_page_arrives_with_a_finished_example(served):
    config = json.loads(urllib.request.urlopen(f"{served.address}config").read())
    by_id = {block["props"].get("elem_id"): block["props"] for block in config["components"]}
    assert by_id["canvas"]["value"]["src"].startswith("data:image/png;base64,")
    assert "verdict" in by_id["card-find"]["value"]
    assert not config.get("enable_monitoring")


def test_error_text_is_ours(served, upload_folder):
    path = upload_folder / "cut.jpg"
    Image.effect_noise((200, 200), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(Exception) as refusal:
        Client(served.address, verbose=False).predict(
            media=handle_file(str(path)), texts=["a"], api_name="/match"
        )
    message = str(refusal.value)
    assert "[image/" in message and str(upload_folder) not in message and "0x" not in message
    assert len(message) <= 300


@pytest.mark.parametrize(
    "spoken, sentence",
    [
        ("ko", "글이 비어 있습니다"),
        ("ko-KR,ko;q=0.9", "글이 비어 있습니다"),
        ("zh-CN", "文字为空"),
        ("de", "Write it"),
    ],
)
def test_refusals_are_in_the_language_of_the_request(served, picture_file, spoken, sentence):
    said = refusal(
        served, "ask", [uploaded(picture_file), "", None, 5, "auto"], Accept_Language=spoken
    )
    assert sentence in said and said.endswith("[text/empty]")


def test_a_job_that_waited_too_long_is_refused_in_words(served, picture_file, monkeypatch):
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0)  # longer than that by the middleware's timestamp
    name, data = call(served.address, "match", [uploaded(picture_file), ["a"]])
    assert name == "error" and data["error"].endswith("[busy/queue]")


def test_health_is_told(served, picture_file):
    call(served.address, "match", [uploaded(picture_file), ["a"]])
    for route, more in (("healthz", {}), ("readyz", {"trouble": ""})):
        with urllib.request.urlopen(served.address + route) as answer:
            assert json.loads(answer.read()) == {"model": "stub", "busy": 0} | more


def test_no_way_around_the_queue(served):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(served.address, "run/match", {"data": [None, ["a"]]})
    assert refusal.value.code == 404
