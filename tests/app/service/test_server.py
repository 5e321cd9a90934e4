"""The launch."""

from __future__ import annotations

import urllib.request

from gradio import networking

from app import build_demo
from app.service.server import start
from tests.app.stub import StubPredictor


def test_a_page_that_loads_slowly_does_not_end_the_launch(monkeypatch):
    """Gradio loads it to see whether the own address works, and gives up after 3 s."""
    monkeypatch.setattr(networking, "url_ok", lambda url: False)
    demo = build_demo(lambda name: StubPredictor(), ("stub",), stored={}, workers=1)
    try:
        address = start(demo, quiet=True)
        assert urllib.request.urlopen(f"{address}config", timeout=30).status == 200
    finally:
        demo.close(verbose=False)
