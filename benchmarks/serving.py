"""What clients of a served app wait for: one on a quiet machine, one beside a busy core, many at
once, and the same upload to a bare Gradio endpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
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
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app import limits

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, "app.py", "--offline", "--model", "mini")
TWO_THREADS = (*SERVER, "--workers", "1", "--threads", "2")
BARE = (sys.executable, "-m", "benchmarks.bare_gradio")
IMPORTS = (
    "import app.service.server, x2vlm.inference.predictor; "
    "x2vlm.inference.predictor.Predictor.from_pretrained('mini')"
)
FORM = "multipart/form-data; boundary=line"
CROWDS = 3  # rounds of each
SPIN = (sys.executable, "-c", "while True: pass")
CALLS: dict[str, dict[str, Any]] = {
    "caption": {},
    "ask": {"question": "what color is the car?"},
    "ground": {"phrases": ["the red car"]},
    "explain": {"text": "a dog on the grass"},
    "match": {"texts": ["a red car", "a small dog"]},
}
BUSY_BAR, CROWD_BAR, SHARE_BAR = 1.5, 1.8, 60.0  # times, times, milliseconds


@dataclass(frozen=True)
class Row:
    """A measured value, and the most (or the least) that it may be where there is a bar."""

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    detail: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "skipped"
        if self.bar is None:
            return ""
        kept = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "pass" if kept else "MISS"

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.{2 if self.unit == 'x' else 1}f}"
        bar = "" if self.bar is None else f"bar {'>=' if self.at_least else '<='} {self.bar:g}"
        start = f"{self.name:56} {value:>9} {self.unit:5}  {bar:14} {self.verdict:8}"
        return f"{start} {self.detail}".rstrip()


@dataclass
class Load:
    """What clients met: seconds of every answered call, refusals told in words, and calls that
    failed otherwise."""

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    busy: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)

    def call(self, client: HttpClient, endpoint: str, picture: Path) -> None:
        start = time.perf_counter()
        try:
            client.predict(picture, endpoint, **CALLS.get(endpoint, {}))
        except Exception as refusal:
            text = str(refusal)
            if "Queue is full" in text or "[busy/" in text:
                self.busy += 1
            else:
                self.failed.append(f"{endpoint}: {text[:200]}")
        else:
            self.seconds[endpoint].append(time.perf_counter() - start)


@contextlib.contextmanager
def server(command: tuple[str, ...] = SERVER, **variables: str) -> Iterator[SimpleNamespace]:
    """The app in a process of its own, which takes `--port`: `process`, `address` and `started`;
    stopped at the end. It has the environment's variables but `OMP_NUM_THREADS`, and these."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = with_byte_code() | {"GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
        environment.pop("OMP_NUM_THREADS", None)
        environment |= variables
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            yield SimpleNamespace(
                process=process,
                address=f"http://127.0.0.1:{port}/",
                started=started,
                folder=Path(folder),
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


class HttpClient:
    """Uploads a file and calls an endpoint over plain HTTP, at little cost of its own: on the
    machine that is measured, the clients take of the server's time."""

    def __init__(self, address: str):
        self.api = f"{address}gradio_api/"

    def predict(self, media: Path, api_name: str, **values: Any) -> Any:
        """The endpoint's result.

        Raises:
            RuntimeError: the server refused the call or failed; the text says what it told.
        """
        with self.stream(api_name, self.ask(media, api_name, **values)) as stream:
            kind, data = stream.read().decode().strip().split("\n")[-2:]
        if kind != "event: complete":
            raise RuntimeError(data)
        return json.loads(data.removeprefix("data: "))[0]

    def ask(self, media: Path, api_name: str, **values: Any) -> str:
        """Upload the file and ask for a call; returns the event's id."""
        path = json.loads(self._post("upload", form(media), FORM))[0]
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"media": file, **values}).encode()
        return json.loads(self._post(f"call/v2/{api_name}", body, "application/json"))["event_id"]

    def stream(self, api_name: str, event: str) -> Any:
        """The open answer to a call."""
        return opened(f"{self.api}call/{api_name}/{event}")

    def _post(self, route: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(self.api + route, body, {"Content-Type": kind})
        with opened(request) as answer:
            return answer.read()


def opened(request: Any) -> Any:
    """The open answer to a request.

    Raises:
        RuntimeError: the server refused it; the text says what it told.
    """
    try:
        return urllib.request.urlopen(request, timeout=300)
    except urllib.error.HTTPError as refused:
        raise RuntimeError(refused.read().decode()) from None


def form(file: Path) -> bytes:
    """A form with one file."""
    head = f'--line\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"'
    return b"".join(
        [head.encode(), b"\r\nContent-Type: image/png\r\n\r\n", file.read_bytes(), b"\r\n--line--"]
    )


@contextlib.contextmanager
def spinning() -> Iterator[Callable[[bool], None]]:
    """A process that keeps one core busy while it is told to; it begins at rest."""
    process = subprocess.Popen(SPIN)

    def spin(busy: bool) -> None:
        process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)

    try:
        spin(False)
        yield spin
    finally:
        process.kill()
        process.wait()


def one_client(
    running: SimpleNamespace, bare: SimpleNamespace, pictures: list[Path], rounds: int = 10
) -> list[Row]:
    """One client calls every endpoint, and one of bare Gradio with the same file, in turns with and
    without a process that keeps a core busy. The first round does not count."""
    load = {False: Load(), True: Load()}
    clients = {
        **dict.fromkeys(CALLS, HttpClient(running.address)),
        "size": HttpClient(bare.address),
    }
    turn = itertools.cycle(pictures)
    with spinning() as spin:
        for number in range(rounds + 1):
            for busy in (False, True):
                spin(busy)
                for name, client in clients.items():
                    load[busy].call(client, name, next(turn))
            if number == 0:
                load = {False: Load(), True: Load()}
    quiet, beside = (
        {name: 1000 * statistics.median(load[busy].seconds[name]) for name in clients}
        for busy in (False, True)
    )
    rows = [Row("bare Gradio, 1 client: median", quiet["size"], "ms")]
    for name in CALLS:
        over, ratio = quiet[name] - quiet["size"], beside[name] / quiet[name]
        rows += [
            Row(f"{name}, 1 client: median", quiet[name], "ms", None, f"{rounds} answers"),
            Row(f"{name}, 1 client: above bare Gradio", over, "ms", SHARE_BAR),
            Row(f"{name}, beside a busy core: median", beside[name], "ms"),
            Row(f"{name}, beside a busy core: times quiet", ratio, "x", BUSY_BAR),
        ]
    failed = load[False].failed + load[True].failed
    return [*rows, Row("1 client: failed", len(failed), "calls", 0, "; ".join(failed[:2]))]


def crowds(pictures: list[Path], running: SimpleNamespace, clients: int) -> list[Row]:
    """Many clients at once, in turns before this server and before one with one worker of two
    threads."""
    with server(TWO_THREADS, OMP_NUM_THREADS="2") as other:
        wait_until(other, "readyz")
        rows, rates = [], {running.address: [], other.address: []}
        for place in (running, other) * CROWDS:
            found = crowd(place, pictures, clients)
            rates[place.address].append(found[-3].value)
            rows = rows or found
    ours, theirs = map(statistics.median, rates.values())
    return [
        *rows[:-3],
        Row(f"{clients} clients: answers a second", ours, "/s", None, f"median of {CROWDS}"),
        *rows[-2:],
        Row(f"{clients} clients, 1 worker of 2 threads: answers a second", theirs, "/s"),
        Row(f"{clients} clients: times those", ours / theirs, "x", CROWD_BAR, at_least=True),
    ]


def crowd(running: SimpleNamespace, pictures: list[Path], clients: int) -> list[Row]:
    """Every client calls every endpoint once, each beginning with another one and waiting for its
    answers."""
    load, names, client = Load(), list(CALLS), HttpClient(running.address)

    def visit(k: int) -> None:
        for number in range(k, k + len(names)):
            load.call(client, names[number % len(names)], pictures[number % len(pictures)])

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(visit, range(clients)))
    wall = time.perf_counter() - start
    seconds = [one for name in names for one in load.seconds[name]]
    who = f"{clients} clients"
    return [
        Row(f"{who}: median", 1000 * statistics.median(seconds or [math.nan]), "ms"),
        Row(f"{who}: 95th percentile", 1000 * percentile(seconds or [math.nan]), "ms"),
        Row(f"{who}: answers a second", len(seconds) / wall, "/s"),
        Row(f"{who}: refused as busy", load.busy, "calls"),
        Row(f"{who}: failed otherwise", len(load.failed), "calls", 0, "; ".join(load.failed[:2])),
    ]


def percentile(values: list[float], percent: int = 95) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
