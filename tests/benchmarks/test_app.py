"""The app's benchmark does the work that it claims, on a stand-in for the model; speed itself is
never asserted."""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from app.service.models import Models
from app.service.runner import Runner
from benchmarks import app as bench
from benchmarks import processes, serving
from tests.app.stub import StubPredictor

SERVER = """
import sys
from app import build_demo
from app.service.server import serve
from tests.app.stub import StubPredictor

serve(build_demo(lambda name: StubPredictor(), ("stub",), stored={}), port=int(sys.argv[2]))
"""


@pytest.fixture
def picture(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(bench, "PICTURES", 1)
    return bench.make_pictures(tmp_path)[0]


def test_a_server_is_started_called_and_stopped(picture, monkeypatch):
    monkeypatch.setattr(serving, "CROWDS", 1)
    with bench.server((sys.executable, "-c", SERVER)) as running:
        ready, loaded, answered = bench.starting(running, picture)
        assert 0 < ready.value <= loaded.value < answered.value
        assert processes.memory(running.process.pid) > 1
        rows = {row.name: row.value for row in serving.crowd(running, [picture], 3)}
        assert rows["3 clients: refused as busy"] == rows["3 clients: failed otherwise"] == 0
        with bench.server(bench.BARE) as bare:
            bench.wait_until(bare)
            rows = {row.name: row for row in bench.one_client(running, bare, [picture], 1)}
        twin = SimpleNamespace(**vars(running))  # a start of a server takes ten seconds
        twin.address = running.address.replace("127.0.0.1", "localhost")
        monkeypatch.setattr(serving, "server", lambda *_, **__: contextlib.nullcontext(twin))
        crowds = {row.name: row.value for row in bench.crowds([picture], running, 2)}
        assert crowds["2 clients: times those"] > 0
        assert crowds["2 clients: failed otherwise"] == 0
    assert running.process.returncode == 0
    assert rows["1 client: failed"].value == 0
    assert all(rows[f"{name}, beside a busy core: times quiet"].value > 0 for name in bench.CALLS)


def test_refusals_and_failures_are_told_apart(picture):
    class Refusing:
        def __init__(self, text: str):
            self.text = text

        def predict(self, *_, **__):
            raise RuntimeError(self.text)

    load = serving.Load()
    for text in (
        "All workers were busy. [busy/queue]",
        "Queue is full! Please try again.",
        "the connection broke",
    ):
        load.call(Refusing(text), "match", picture)
    assert load.busy == 2 and load.failed == ["match: the connection broke"] and not load.seconds


def test_a_server_that_does_not_start_is_told():
    with (
        bench.server((sys.executable, "-c", "raise SystemExit(3)")) as running,
        pytest.raises(RuntimeError, match="not start"),
    ):
        bench.wait_until(running)


def test_view_changes_are_timed_without_a_model_call(picture):
    rows = bench.view_changes(
        Runner(Models(lambda name: StubPredictor(), ("stub",))), picture, rounds=1
    )
    assert [row.value > 0 for row in rows] == [True] * 5 + [False]


def test_a_view_change_that_asks_a_model_is_counted(picture, monkeypatch):
    model = torch.nn.Identity()
    monkeypatch.setattr(
        bench.view_events, "picked", lambda state, _: (model(torch.zeros(1)), state)[1]
    )
    rows = bench.view_changes(
        Runner(Models(lambda name: StubPredictor(), ("stub",))), picture, rounds=1
    )
    assert rows[-1].value > 0


def test_a_bar_may_be_the_least():
    verdicts = [bench.Row("", value, "", 1.8, at_least=True).verdict for value in (1.7, 1.9)]
    assert verdicts == ["MISS", "pass"]


def test_verdicts_and_percentile():
    assert [bench.Row("", value, "", bar).verdict for value, bar in ((1, 2), (3, 2), (3, None),
    (None, 2))] == [
        "pass", "MISS", "", "skipped"]  # fmt: skip
    assert bench.percentile(list(range(1, 101))) == 95 and bench.percentile([7.0]) == 7.0
