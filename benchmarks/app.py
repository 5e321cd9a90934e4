"""Speed and load of the app as it runs: `python -m benchmarks.app [--clients 20] [--json]`.

Clients over HTTP against `python app.py` in a process of its own, offline, with `mini`:
one on a quiet machine and one beside a busy core, many at once, and the same upload to an endpoint
of bare Gradio; then what a change of view costs, in this process. First paint needs a Chromium and
is skipped where there is none. Byte code is compiled beforehand, as it is when packages are
installed: without it, a start compiles thousands of files first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import torch

from app import limits, view_events
from app.examples import FOLDER
from app.scenes import fresh_scene, save_scene
from app.service.models import Models
from app.service.runner import Runner
from app.stage import Stage
from app.state import MediaRef, ViewOptions, ViewState
from app.tab import Asker
from app.tabs.find import Find
from benchmarks import processes
from benchmarks.chromium import chromium
from benchmarks.serving import (
    BARE,
    BUSY_BAR,
    CALLS,
    HttpClient,
    Row,
    crowds,
    one_client,
    percentile,
    server,
    spinning,
    wait_until,
)

PICTURES = 2 * limits.SCENES + 4  # in turn, so that none is still kept when it comes again
START_BAR, PAINT_BAR, VIEW_BAR = 15.0, 1000.0, 150.0  # seconds, milliseconds, milliseconds


def starting(running: SimpleNamespace, picture: Path) -> list[Row]:
    """Process start to page, to the loaded model, and to the first answer of a client that was
    waiting."""
    wait_until(running)
    ready = time.perf_counter() - running.started
    wait_until(running, "readyz")
    loaded = time.perf_counter() - running.started
    HttpClient(running.address).predict(picture, "match", **CALLS["match"])
    answered = time.perf_counter() - running.started
    return [
        Row("start to ready", ready, "s", START_BAR),
        Row("start to model loaded", loaded, "s"),
        Row("cold start to first answer", answered, "s"),
    ]


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


def browser(running: SimpleNamespace, visits: int = 5) -> list[Row]:
    """First paint of the finished example, in a real Chromium, in turns with and without a process
    that keeps a core busy."""
    names = ("from navigation", "after the page's load", "beside a busy core: times quiet")
    painted, after_load = {False: [], True: []}, {False: [], True: []}
    try:
        with chromium() as driven, spinning() as spin:
            for busy in (False, True) * visits:
                spin(busy)
                paint, load = visit(driven, running.address)
                painted[busy].append(paint)
                after_load[busy].append(max(0.0, paint - load))
    except LookupError as missing:
        return [Row(f"first paint, {name}", None, "ms", None, str(missing)) for name in names]
    quiet, busy = (statistics.median(painted[busy]) for busy in (False, True))
    detail = f"median of {visits} visits with an empty cache"
    return [
        Row(f"first paint, {names[0]}", quiet, "ms", None, detail),
        Row(
            f"first paint, {names[1]}",
            statistics.median(after_load[False]),
            "ms",
            PAINT_BAR,
            detail,
        ),
        Row(f"first paint, {names[2]}", busy / quiet, "x", BUSY_BAR, f"{busy:.0f} ms"),
    ]


def visit(driven: Any, address: str) -> tuple[float, float]:
    """Milliseconds from navigation to the stage's image and to the page's load, in a new window."""
    context = driven.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.add_init_script(WATCH_PAINT)
    page.goto(address, wait_until="load")
    times = page.wait_for_function("window.painted").json_value(), page.evaluate(LOADED)
    context.close()
    return times


def make_pictures(folder: Path) -> list[Path]:
    """Fresh scenes, as PNG files."""
    return [
        save_scene("image", fresh_scene("image", number)[0], folder / f"scene{number}")
        for number in range(PICTURES)
    ]


def measure(clients: int) -> Iterator[Row]:
    """The rows, as soon as each is known: a later part that fails loses none of them."""
    yield load_average("begin")
    with tempfile.TemporaryDirectory() as folder, server() as running:
        yield from starting(running, FOLDER / "scene.png")
        yield Row("memory after the first answer", processes.memory(running.process.pid), "MiB")
        yield from browser(running)
        pictures = make_pictures(Path(folder))
        with server(BARE) as bare:
            wait_until(bare)
            yield from one_client(running, bare, pictures)
        yield from crowds(pictures, running, clients)
        yield Row("memory after the load", processes.memory(running.process.pid), "MiB")
    from x2vlm.inference.predictor import Predictor

    yield from view_changes(Runner(Models(Predictor.from_pretrained)), FOLDER / "scene.png")
    yield load_average("end")


def load_average(when: str) -> Row:
    """Processes that wanted a core in the last minute: others', at the beginning."""
    return Row(f"load average of the machine, {when}", os.getloadavg()[0], "")


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
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
