"""Speed and load of the app as it runs: `python -m benchmarks.app [--clients 20] [--json]`.

Real clients against `python app.py` in a process of its own, offline, with the bundled model; then
what a change of view costs, in this process. First paint needs a Chromium and is skipped where
there is none. Byte code is compiled beforehand, as it is when packages are installed: without it, a
start compiles thousands of files first.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import torch
from gradio_client import Client, handle_file

from app import limits, view_events
from app.examples import FOLDER, fresh_scene, save_scene
from app.service.models import Models
from app.service.runner import Runner
from app.stage import Stage
from app.state import MediaRef, ViewOptions, ViewState
from app.tab import Asker
from app.tabs.find import Find
from benchmarks.chromium import chromium

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, "app.py", "--offline")
IMPORTS = (
    "import app.service.server, x2vlm.inference.predictor; "
    "x2vlm.inference.predictor.Predictor.from_pretrained('mini')"
)
PICTURES = 2 * limits.SCENES + 4  # in turn, so that none is still kept when it comes again
CALLS: dict[str, dict[str, Any]] = {
    "caption": {},
    "ask": {"question": "what color is the car?"},
    "ground": {"phrases": ["the red car"]},
    "explain": {"text": "a dog on the grass"},
    "match": {"texts": ["a red car", "a small dog"]},
}
START_BAR, PAINT_BAR, VIEW_BAR = 15.0, 1000.0, 150.0  # seconds, milliseconds, milliseconds


@dataclass(frozen=True)
class Row:
    """A measured value, and the most it may be where there is a bar."""

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    detail: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "skipped"
        return "" if self.bar is None else "pass" if self.value <= self.bar else "MISS"


@dataclass
class Load:
    """What clients met: seconds of every answered call, refusals told in words, and calls that
    failed otherwise."""

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    busy: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)

    def call(self, client: Client, endpoint: str, picture: Path) -> None:
        start = time.perf_counter()
        try:
            client.predict(
                media=handle_file(str(picture)), **CALLS[endpoint], api_name=f"/{endpoint}"
            )
        except Exception as refusal:
            text = str(refusal)
            if "Queue is full" in text or "[busy/" in text:
                self.busy += 1
            else:
                self.failed.append(f"{endpoint}: {text[:200]}")
        else:
            self.seconds[endpoint].append(time.perf_counter() - start)


@contextlib.contextmanager
def server(command: tuple[str, ...] = SERVER) -> Iterator[SimpleNamespace]:
    """The app in a process of its own, which takes `--port`: `process`, `address` and `started`;
    stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = with_byte_code() | {"GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            yield SimpleNamespace(
                process=process, address=f"http://127.0.0.1:{port}/", started=started
            )
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(limits.DRAIN_SECONDS + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def with_byte_code() -> dict[str, str]:
    """An environment in which a program keeps its byte code, and finds that of all that the app
    imports."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "x2vlm-byte-code")
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, env=kept, check=True)
    return kept


def wait_until(running: SimpleNamespace, route: str = "", seconds: float = 120) -> None:
    """Return when the route answers.

    Raises:
        RuntimeError: the server ended, or did not come up in time.
    """
    while time.perf_counter() - running.started < seconds and running.process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(running.address + route, timeout=10).read()
            return
        time.sleep(0.02)
    raise RuntimeError("The app did not start; run `python app.py` to see why.")


def connect(running: SimpleNamespace) -> Client:
    """A client that talks to the server alone."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = (
        "False"  # the client's own argument does not override an unset variable
    )
    return Client(running.address, verbose=False, analytics_enabled=False)


def starting(running: SimpleNamespace, picture: Path) -> list[Row]:
    """Process start to page, to the loaded model, and to the first answer of a client that was
    waiting."""
    wait_until(running)
    ready = time.perf_counter() - running.started
    wait_until(running, "readyz")
    loaded = time.perf_counter() - running.started
    connect(running).predict(media=handle_file(str(picture)), **CALLS["match"], api_name="/match")
    answered = time.perf_counter() - running.started
    return [
        Row("start to ready", ready, "s", START_BAR),
        Row("start to model loaded", loaded, "s"),
        Row("cold start to first answer", answered, "s"),
    ]


def endpoints(
    running: SimpleNamespace, pictures: list[Path], clients: int, rounds: int
) -> list[Row]:
    """Every client calls every endpoint `rounds` times, each beginning with another one and waiting
    for its answers."""
    load, names = Load(), list(CALLS)
    connected = [connect(running) for _ in range(clients)]

    def visit(k: int) -> None:
        for number in range(rounds * len(names)):
            load.call(
                connected[k],
                names[(k + number) % len(names)],
                pictures[(k + number) % len(pictures)],
            )

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(visit, range(clients)))
    wall = time.perf_counter() - start
    who = "1 client" if clients == 1 else f"{clients} clients"
    rows = []
    for name in names:
        if seconds := load.seconds[name]:
            detail = f"{len(seconds)} answers"
            rows.append(
                Row(f"{name}, {who}: median", 1000 * statistics.median(seconds), "ms", None, detail)
            )
            rows.append(Row(f"{name}, {who}: 95th percentile", 1000 * percentile(seconds), "ms"))
    answered = sum(map(len, load.seconds.values()))
    return [
        *rows,
        Row(f"{who}: answers a second", answered / wall, "/s"),
        Row(f"{who}: refused as busy", load.busy, "calls"),
        Row(f"{who}: failed otherwise", len(load.failed), "calls", 0, "; ".join(load.failed[:2])),
    ]


def memory(running: SimpleNamespace) -> float:
    """MiB of RAM that the server's process holds (Linux)."""
    status = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def view_changes(runner: Runner, picture: Path, rounds: int = 10) -> list[Row]:
    """What the page draws anew on two found phrases, while every forward pass of any model is
    counted."""
    media, find = MediaRef(str(picture)), Find()
    state = ViewState(media, runner.preview(media, None, ""), tab=find.name)
    asker = Asker(runner, "", state, runner.models.default)
    result = find.run(asker, find.defaults | {"phrases": "the red car\na dog"})
    state = state.with_result(find.name, result)
    with gr.Blocks():
        stage = Stage()
        stage.build()
    changes: dict[str, Callable[[], Any]] = {
        "word": lambda: stage.show(view_events.picked(state, "0:1"), ViewOptions()),
        "phrase": lambda: stage.show(view_events.picked(state, "1:"), ViewOptions()),
        "opacity": lambda: stage.redraw(state, ViewOptions(opacity=0.9)),
        "threshold": lambda: stage.redraw(state, ViewOptions(threshold=0.5)),
        "colour map": lambda: stage.redraw(state, ViewOptions(colormap="magma")),
    }
    passes: list[str] = []
    counter = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: passes.append(type(module).__name__)
    )
    try:
        rows = [
            Row(
                f"view change, {name}: 95th percentile",
                percentile(timed(change, rounds)),
                "ms",
                VIEW_BAR,
            )
            for name, change in changes.items()
        ]
    finally:
        counter.remove()
    return [*rows, Row("view changes: forward passes of a model", len(passes), "", 0)]


def timed(action: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of every round, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        action()
        found.append(1000 * (time.perf_counter() - start))
    return found[1:]


def percentile(values: list[float], percent: int = 95) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


# Milliseconds from navigation until the stage's image is decoded and in view.
WATCH_PAINT = """
const look = () => {
  const picture = document.querySelector('#canvas img');
  const there = picture && picture.complete && picture.naturalWidth &&
  picture.getBoundingClientRect().height > 0;
  if (there) window.painted = performance.now(); else requestAnimationFrame(look);
};
look();
"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def browser(running: SimpleNamespace, visits: int = 3) -> list[Row]:
    """First paint of the finished example, in a real Chromium."""
    names = ("first paint, from navigation", "first paint, after the page's load")
    painted, after_load = [], []
    try:
        with chromium() as driven:
            for _ in range(visits):
                context = driven.new_context(viewport={"width": 1280, "height": 900})
                context.set_default_timeout(60_000)
                page = context.new_page()
                page.add_init_script(WATCH_PAINT)
                page.goto(running.address, wait_until="load")
                painted.append(page.wait_for_function("window.painted").json_value())
                after_load.append(max(0.0, painted[-1] - page.evaluate(LOADED)))
                context.close()
    except LookupError as missing:
        return [Row(name, None, "ms", None, str(missing)) for name in names]
    detail = f"median of {visits} visits with an empty cache"
    return [
        Row(names[0], statistics.median(painted), "ms", None, detail),
        Row(names[1], statistics.median(after_load), "ms", PAINT_BAR, detail),
    ]


def make_pictures(folder: Path) -> list[Path]:
    """Fresh scenes, as PNG files."""
    return [
        save_scene("image", fresh_scene("image", number)[0], folder / f"scene{number}")
        for number in range(PICTURES)
    ]


def measure(clients: int) -> Iterator[Row]:
    """The rows, as soon as each is known: a later part that fails loses none of them."""
    with tempfile.TemporaryDirectory() as folder, server() as running:
        yield from starting(running, FOLDER / "scene.png")
        yield Row("memory after the first answer", memory(running), "MiB")
        yield from browser(running)
        pictures = make_pictures(Path(folder))
        yield from endpoints(running, pictures, 1, 10)
        yield from endpoints(running, pictures, clients, 2)
        yield Row("memory after the load", memory(running), "MiB")
    from x2vlm.inference.predictor import Predictor

    yield from view_changes(Runner(Models(Predictor.from_pretrained)), FOLDER / "scene.png")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app", description=__doc__)
    parser.add_argument("--clients", type=int, default=20, help="concurrent visitors")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    rows = measure(options.clients)
    if options.json:
        print(
            json.dumps(
                [dataclasses.asdict(row) | {"verdict": row.verdict} for row in rows], indent=2
            )
        )
        return 0
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.1f}"
        bar = "" if row.bar is None else f"bar <= {row.bar:g}"
        print(
            f"{row.name:48} {value:>9} {row.unit:5}  {bar:14} {row.verdict:8} "
            f"{row.detail}".rstrip(),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
