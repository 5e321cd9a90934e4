"""The launch: on a busy machine, behind a proxy, on a Space."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from gradio import networking
from PIL import Image

from app import build_demo
from app.service.server import start
from tests.app.serving import call, post, uploaded
from tests.app.stub import StubPredictor


@contextlib.contextmanager
def launched(**options: Any) -> Iterator[tuple[str, Any]]:
    """Address and blocks of the app over the stub, in this process."""
    demo = build_demo(lambda name: StubPredictor(), ("stub",), stored={}, workers=1)
    try:
        yield start(demo, quiet=True, **options), demo
    finally:
        demo.close(verbose=False)


@pytest.fixture(autouse=True)
def picture(tmp_path, monkeypatch):
    """An image in an upload folder of its own, which the app empties when it ends."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    Image.effect_noise((60, 40), 50).convert("RGB").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def config(address: str, **headers: str) -> dict[str, Any]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{address}config", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_page_that_loads_slowly_does_not_end_the_launch(monkeypatch):
    """Gradio loads it to see whether the own address works, and gives up after 3 s."""
    monkeypatch.setattr(networking, "url_ok", lambda url: False)
    with launched() as (address, _):
        assert config(address)["mode"] == "blocks"


def test_on_a_space_the_page_and_the_api_are_at_its_address(monkeypatch, picture):
    for name, value in {
        "SYSTEM": "spaces",
        "SPACE_ID": "a/b",
        "SPACE_HOST": "a-b.hf.space",
        "GRADIO_SSR_MODE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    with launched() as (address, demo):
        forwarded = {"X_Forwarded_Host": "a-b.hf.space", "X_Forwarded_Proto": "https"}
        assert config(address, **forwarded)["root"] == "https://a-b.hf.space"
        assert not demo.ssr_mode
        name, data = call(address, "match", [uploaded(picture), ["a"]], **forwarded)
        assert name == "complete", data


@pytest.mark.parametrize(
    "root_path, root", [("/below", "/below"), ("https://example.org/below", "//example.org/below")]
)
def test_behind_a_proxy_with_a_prefix(picture, root_path, root):
    with launched(root_path=root_path) as (address, _):
        assert config(address)["root"].endswith(root)
        name, data = call(address, "match", [uploaded(picture), ["a"]])
        assert name == "complete", data
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, "call/nope", {"data": []})
        assert refused.value.code == 404
