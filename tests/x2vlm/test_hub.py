"""Names of checkpoints, and downloads from a local server that cuts, lies, changes its file and
asks for a login."""

import dataclasses
import hashlib
import inspect
import os
import socketserver
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from x2vlm import hub
from x2vlm.errors import CheckpointError
from x2vlm.inference.predictor import Predictor
from x2vlm.known import DEFAULT
from x2vlm.modeling.build import load_model
from x2vlm.modeling.retrieval import X2VLMForRetrieval
from x2vlm.modeling.x2vlm import X2VLM

NAME = "x2vlm_base_4m"
FILE = hub.KNOWN[NAME].file
DATA = bytes(range(256)) * 3000
CHANGED = DATA[::-1]


class Server(BaseHTTPRequestHandler):
    """Serves DATA with ranges; `script` is a list of how to misbehave, one entry a request."""

    etag = '"{}"'

    def __init__(self, log, script, *arguments):
        self.log, self.script = log, script
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_GET(self):
        range_ = self.headers.get("Range")
        self.log.append((self.path, range_))
        trouble = self.script.pop(0) if self.script else None
        content = CHANGED if trouble == "changed" else DATA
        if isinstance(trouble, int):
            return self.send_error(trouble)
        if trouble == "login":
            return self.answer(200, b"<html>Log in</html>", "text/html; charset=utf-8")
        headers = {"ETag": self.etag.format(content[0]), "Last-Modified": f"day {content[0]}"}
        wanted = self.headers.get("If-Range", headers["Last-Modified"])
        other = wanted.startswith("W/") or wanted not in headers.values()
        start = (
            int(range_[6:].rstrip("-")) if range_ and trouble != "no ranges" and not other else 0
        )
        if start >= len(content):
            return self.answer(
                416, b"", "text/plain", **{"Content-Range": f"bytes */{len(content)}"}
            )
        body = content[start:]
        if trouble != "no length":
            headers["Content-Length"] = str(len(body))
        sent = body[: len(body) // 3] if trouble == "cut" else body
        self.answer(206 if start else 200, sent, "application/octet-stream", **headers)

    def answer(self, status, body, kind, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Starts the server; returns (log of requests, script of troubles). The cache is empty."""
    log, script = [], []
    service = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, log, script))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    monkeypatch.setenv("X2VLM_CHECKPOINT_URL", f"http://127.0.0.1:{service.server_port}/files")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield log, script
    service.shutdown()
    service.server_close()


def known(monkeypatch, **changes):
    monkeypatch.setitem(hub.KNOWN, NAME, dataclasses.replace(hub.KNOWN[NAME], **changes))


def left_in_cache():
    return sorted(path.name for path in hub.cache_dir().iterdir() if path.suffix != ".lock")


def test_download_once_with_progress(server, monkeypatch):
    log, _ = server
    known(monkeypatch, size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    seen = []
    path = hub.download(NAME, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA and path == hub.cache_dir() / FILE
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)
    assert log == [(f"/files/{FILE}", None)] and left_in_cache() == [FILE]
    assert hub.resolve(NAME) == path and len(log) == 1


def test_a_cut_download_goes_on_where_it_stopped(server):
    log, script = server
    script += ["cut"]
    assert hub.download(NAME).read_bytes() == DATA
    assert log[1][1] == f"bytes={len(DATA) // 3}-"


def test_a_download_goes_on_in_a_later_call(server):
    log, script = server
    script += ["cut"] * hub.ATTEMPTS
    with pytest.raises(CheckpointError) as caught:
        hub.download(NAME)
    assert caught.value.code == "ckpt/download" and left_in_cache() == [
        f"{FILE}.partial",
        f"{FILE}.version",
    ]
    assert hub.download(NAME).read_bytes() == DATA
    assert int(log[-1][1][6:-1]) > len(DATA) // 2 and left_in_cache() == [FILE]


def test_a_server_without_ranges_starts_over(server):
    _, script = server
    script += ["cut", "no ranges"]
    assert hub.download(NAME).read_bytes() == DATA


@pytest.mark.parametrize("etag", ['"{}"', 'W/"{}"'])
def test_a_file_that_changed_on_the_server_is_fetched_anew(etag, server, monkeypatch):
    monkeypatch.setattr(Server, "etag", etag)
    _, script = server
    script += ["cut", "changed", "cut", "cut"]
    assert hub.download(NAME).read_bytes() == CHANGED and left_in_cache() == [FILE]
    (hub.cache_dir() / FILE).unlink()
    seen = []
    assert hub.download(NAME, lambda done, total: seen.append(done)).read_bytes() == DATA
    assert seen == sorted(set(seen))  # the same version goes on where it was cut


def test_an_answer_without_a_length_ends_where_it_ends(server):
    log, script = server
    script += ["no length"]
    assert hub.download(NAME).read_bytes() == DATA and len(log) == 1


def test_a_partial_file_that_is_whole_is_not_fetched_again(server):
    log, _ = server
    hub.cache_dir().mkdir(parents=True)
    (hub.cache_dir() / f"{FILE}.partial").write_bytes(DATA)
    assert hub.download(NAME).read_bytes() == DATA and left_in_cache() == [FILE]
    assert log == [(f"/files/{FILE}", f"bytes={len(DATA)}-")]


def test_a_damaged_file_of_the_cache_is_named_with_its_place(server, tmp_path):
    hub.cache_dir().mkdir(parents=True)
    for folder, told in ((hub.cache_dir(), True), (tmp_path, False)):
        (folder / FILE).write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(CheckpointError, match="damaged") as caught:
            load_model(NAME if told else folder / FILE)
        assert caught.value.code == "ckpt/damaged"
        assert (f"delete $HF_HOME/x2vlm/{FILE}" in caught.value.message) == told


def test_a_partial_file_of_something_else_is_dropped(server):
    hub.cache_dir().mkdir(parents=True)
    (hub.cache_dir() / f"{FILE}.partial").write_bytes(b"x" * (len(DATA) + 5))
    assert hub.download(NAME).read_bytes() == DATA


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"size": 5}, "bytes on the server"), ({"sha256": "0" * 64}, "checksum")],
    ids=["size", "hash"],
)
def test_wrong_size_or_checksum_leaves_nothing(changes, word, server, monkeypatch):
    known(monkeypatch, **changes)
    with pytest.raises(CheckpointError, match=word):
        hub.download(NAME)
    assert left_in_cache() == []


@pytest.mark.parametrize(("trouble", "word"), [(404, "404"), (403, "403"), ("login", "web page")])
def test_answers_that_are_not_the_file(trouble, word, server):
    log, script = server
    script += [trouble]
    with pytest.raises(CheckpointError, match=word) as caught:
        hub.download(NAME)
    assert (
        f"$HF_HOME/x2vlm/{FILE}" in caught.value.message and len(log) == 1 and left_in_cache() == []
    )


def test_a_server_error_is_tried_again(server):
    log, script = server
    script += [503]
    assert hub.download(NAME).read_bytes() == DATA and len(log) == 2


def test_offline_says_which_file_to_put_where(server, monkeypatch):
    monkeypatch.setenv("X2VLM_CHECKPOINT_URL", "http://127.0.0.1:9/")
    for offline in ("0", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        with pytest.raises(CheckpointError) as caught:
            hub.resolve(NAME)
        assert (
            caught.value.code == "ckpt/download"
            and f"put the file {FILE} at $HF_HOME/x2vlm/{FILE}" in caught.value.message
        )
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(CheckpointError, match=r"~/\.cache/huggingface/x2vlm") as caught:
        hub.resolve(NAME)
    assert "/nonexistent" not in str(caught.value)


def test_a_file_put_into_the_cache_by_hand_is_used(server):
    log, _ = server
    hub.cache_dir().mkdir(parents=True)
    path = hub.cache_dir() / hub.KNOWN["xvlm_base_4m"].file
    with pytest.raises(CheckpointError, match="authors"):
        hub.resolve("xvlm_base_4m")
    path.write_bytes(DATA)
    assert hub.resolve("xvlm_base_4m") == path and not log


def test_no_room_on_disk(server, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(CheckpointError) as caught:
        hub.download(NAME)
    assert caught.value.code == "ckpt/disk" and left_in_cache() == []


def test_two_downloads_at_once_fetch_once(server):
    log, _ = server
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: hub.download(NAME), range(3)))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == DATA and len(log) == 1


@pytest.mark.parametrize(
    "name",
    ["", "   ", "nothing", "../nothing", "/nothing/here", "file:///etc/passwd", "http://127.0.0.1/x.th",
     "https://user:secret@host/x", "http://169.254.169.254/latest", "ftp://host/x",
     "gopher://host", "x\0y", "a" * 5000,
     "line\nbreak", "C:\\x.th", "mini/../x", "\x1b[31mred", "~nobody-of-this-name/x",
     "runs/model.th", "runs/model.BIN"],
)  # fmt: skip
def test_names_that_lead_nowhere(name, monkeypatch):
    monkeypatch.setattr(hub, "download", lambda *_: pytest.fail("tried to download"))
    monkeypatch.setattr(
        hub.huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the Hub")
    )
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(name)
    assert (
        caught.value.code == "ckpt/source"
        and "secret" not in str(caught.value)
        and len(str(caught.value)) < 700
    )
    assert "\0" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("mimi", "mini"), ("x2vlm_base_1bb", "x2vlm_base_1b"),
    ("x2vlm-large-1b-vqa", "x2vlm_large_1b_vqa"),
     ("ckpts/x2vlm_larg_4m.th", "x2vlm_large_4m"),
     ("xvlm_base_16m_nlvr", "xvlm_base_16m_nlvr2"), ("xvlm_large_4m", "xvlm_base_4m"),
     ("cclm_3m_epoch_9.th", "cclm_3m"), ("cclm_base", "cclm_x2vlm_base"),
     ("16m_base_model_state_step_19999.th", "xvlm_base_16m"),
     ("4m-all-ft-ckpt.tar", "xvlm_base_4m_finetuned"), ("x2vlm_base_16m", "x2vlm_base_4m")],
)  # fmt: skip
def test_did_you_mean(typo, meant):
    with pytest.raises(CheckpointError, match=f"Did you mean {meant}"):
        hub.resolve(typo)


@pytest.mark.parametrize(
    ("typo", "family"),
    [("x2vlm_base_16m_vqa", "x2vlm"), ("xvlm_base_1b", "xvlm"), ("cclm_large_4m", "cclm"),
     ("xvlm_base_4m_captioning", "xvlm"), ("x2vlm_cclm", "x2vlm"), ("x-vlm-large-1b", "xvlm")],
)  # fmt: skip
def test_no_name_of_another_family_is_suggested(typo, family):
    with pytest.raises(CheckpointError) as caught:
        hub.resolve(typo)
    if "Did you mean" in caught.value.message:
        meant = caught.value.message.split("Did you mean ")[1]
        assert meant.startswith(family)


class Silent(socketserver.BaseRequestHandler):
    """Accepts a connection and never answers."""

    def handle(self):
        self.request.recv(1)
        time.sleep(20)


PROGRAM = """
import dataclasses, time
from transformers import AutoTokenizer, AutoModelForMaskedLM
from x2vlm import hub
from x2vlm.checkpoint import initialize
from x2vlm.checkpoint.tokenizer import find_tokenizer
from x2vlm.errors import X2VLMError
from x2vlm.modeling.build import build_model
from x2vlm.presets import BASE, CCLM_BASE
vision = dataclasses.replace(BASE.vision, image_size=32, hidden_size=8, num_layers=1, num_heads=1)
text = dataclasses.replace(BASE.text, hidden_size=12, num_layers=1, vocab_size=9)
model = build_model(BASE.replace(vision=vision, text=text, heads=()))
start = time.monotonic()
for call in (
    lambda: hub.resolve("someone/model"),
    lambda: find_tokenizer(CCLM_BASE, None),
    lambda: initialize(model, text="bert-base-uncased"),
    lambda: initialize(model, vision="beitv2_base_patch16_224.in1k_ft_in22k"),
):
    try:
        print(call())
    except X2VLMError as error:
        print(error.code)
print(time.monotonic() - start)
"""


@pytest.mark.parametrize("kind", ["refuses", "silent"])
def test_a_hub_that_cannot_be_reached_costs_seconds_and_no_word_of_a_library(kind, tmp_path):
    class Hub(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address = True, True

    with Hub(("127.0.0.1", 0), Silent) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        port = service.server_address[1] if kind == "silent" else 9
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
        }
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        service.shutdown()
    *said, seconds = result.stdout.split()
    assert said == ["ckpt/source", "None", "ckpt/source", "ckpt/source"]
    assert result.stderr == ""
    assert float(seconds) < 15  # four for the answer; the rest is a busy machine, not ten retries


@pytest.mark.parametrize("owner", [Predictor, X2VLM, X2VLMForRetrieval])
def test_where_no_checkpoint_is_named_all_take_the_same(owner):
    first, *_ = inspect.signature(owner.from_pretrained).parameters.values()
    assert first.default == DEFAULT == hub.BUNDLED[0]


def test_hub_repositories(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert hub.resolve("someone/model") == hub.resolve("someone/x2vlm-v1.5") == tmp_path
    client = sys.modules[hub.HTTPError.__module__.partition(".")[0]]

    def gone(error, *_, **__):
        raise error("https://secret-address/")

    for error in (
        hub.huggingface_hub.errors.LocalEntryNotFoundError,
        client.ProxyError,
        client.ReadError,
    ):
        monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", partial(gone, error))
        with pytest.raises(CheckpointError, match="someone/model") as caught:
            hub.resolve("someone/model")
        assert "secret-address" not in str(caught.value)


def test_local_paths(tmp_path, monkeypatch):
    assert hub.resolve(tmp_path) == tmp_path
    (tmp_path / "x.th").write_bytes(b"x")
    assert hub.resolve(str(tmp_path / "x.th")) == tmp_path / "x.th"
    monkeypatch.chdir(tmp_path)
    for name in ("mini", NAME):
        Path(name).mkdir()
    assert hub.resolve(NAME) == Path(NAME)  # what is here comes before what is known
    assert hub.resolve("mini") == hub.bundled_dir(
        "mini"
    )  # but `mini` is the bundled one wherever a program is started


def test_offline_reaches_the_hub_library_before_it_is_imported(tmp_path):
    """`python app.py --offline` with an app that tells what huggingface_hub has read."""
    (tmp_path / "app" / "service").mkdir(parents=True)
    (tmp_path / "app" / "__init__.py").write_text(
        "from huggingface_hub import constants\ndef build_demo(*_, **__): "
        "print(constants.HF_HUB_OFFLINE)\n"
    )
    (tmp_path / "app" / "service" / "server.py").write_text(
        "def __getattr__(name): return lambda *_, **__: None\n"
    )
    app = Path(__file__).resolve().parents[2] / "app.py"
    start = (
        f"import runpy, sys; sys.argv = ['app.py', '--offline']; runpy.run_path({str(app)!r}, "
        f"run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "True\n", done.stderr


def test_the_bundled_model_is_found_in_a_clone_and_in_a_wheel(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    (clone / "assets" / "mini").mkdir(parents=True)
    monkeypatch.setattr(hub, "__file__", str(clone / "x2vlm" / "hub.py"))
    monkeypatch.setattr(hub.importlib.metadata, "files", lambda _: None)
    assert hub.bundled_dir("mini") is None
    with pytest.raises(CheckpointError, match="install"):
        hub.resolve("mini")
    (clone / "assets" / "mini" / "config.json").write_text("{}")
    assert hub.bundled_dir("mini") == clone / "assets" / "mini" and hub.resolve(
        "mini"
    ) == hub.bundled_dir("mini")

    installed = tmp_path / "prefix" / "share" / "x2vlm" / "mini"
    installed.mkdir(parents=True)
    (installed / "config.json").write_text("{}")
    entry = hub.importlib.metadata.PackagePath("../../../share/x2vlm/mini/config.json")
    entry.dist = type(
        "Distribution", (), {"locate_file": lambda self, path: installed / "config.json"}
    )()
    monkeypatch.setattr(hub, "__file__", str(tmp_path / "site-packages" / "x2vlm" / "hub.py"))
    monkeypatch.setattr(hub.importlib.metadata, "files", lambda _: [entry])
    assert hub.bundled_dir("mini") == installed


def test_every_official_file_has_a_name():
    assert (
        len(hub.KNOWN) == 24
        and sum(checkpoint.downloadable for checkpoint in hub.KNOWN.values()) == 12
    )
    assert all(checkpoint.file.endswith((".th", ".tar")) for checkpoint in hub.KNOWN.values())
    assert len({checkpoint.file for checkpoint in hub.KNOWN.values()}) == 24


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cclm_3m", "cclm_3m_epoch_29.th"),
        ("cclm_4m", "cclm_4m_epoch_29.th"),
        ("xvlm_base_4m_finetuned", "4m-all-ft-ckpts.tar"),
    ],
)
def test_a_file_without_a_link_is_asked_for_by_its_name(name, file, server):
    with pytest.raises(CheckpointError, match=file) as caught:
        hub.download(name)
    assert caught.value.code == "ckpt/download"


def test_the_seven_fine_tuned_files_of_xvlm_are_known():
    assert sum(name.startswith("xvlm_base_16m_") for name in hub.KNOWN) == 7


@pytest.mark.parametrize(
    ("held", "asked"), [("model.safetensors", 1), ("model-00001-of-00002.safetensors", 1),
                        ("pytorch_model.bin", 2)]
)  # fmt: skip
def test_torch_files_of_a_repository_are_fetched_where_it_has_no_safetensors(
    held, asked, monkeypatch, tmp_path
):
    wanted = []

    def download(name, allow_patterns, local_files_only):
        wanted.append(allow_patterns)
        if any(Path(held).match(pattern) for pattern in allow_patterns):
            (tmp_path / held).write_bytes(b"x")
        return str(tmp_path)

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    assert (hub.resolve("someone/model") / held).is_file()
    assert len(wanted) == asked
