"""The app over the stub in a process of its own, and calls by hand: cheap enough for a hundred
visitors at once.

`python -m tests.app.serving PORT DELAY` serves, tells every call that begins and how many are at
work, and ends with a signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes
from tests.app.stub import StubPredictor

ROOT = Path(__file__).resolve().parents[2]


class Running:
    """A served app: `address`, `process`, upload `folder`, lines that it `told`, and its `log`."""

    def __init__(self, process: subprocess.Popen, port: int, folder: Path):
        self.process, self.folder, self.told = process, folder, []
        self.log = folder.with_suffix(".log")
        self.address = f"http://127.0.0.1:{port}/"
        threading.Thread(target=lambda: self.told.extend(process.stdout), daemon=True).start()

    def wait_until(self, condition: Any, seconds: float = 300) -> None:
        """Return when `condition()` holds; fails when the server ended or time ran out."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(self.address + "config", timeout=10) as page,
        ):
            return page.status == 200
        return False

    def at_work(self, text: str = "") -> list[int]:
        """For every call about a text with `text` in it: how many were at work as it began."""
        lines = [re.fullmatch(r"at work (\d+): (.*)\n", line) for line in list(self.told)]
        return [int(line[1]) for line in lines if line and text in line[2]]

    @contextlib.contextmanager
    def holding(self, text: str) -> Iterator[None]:
        """Calls about this text, one with "held" in it, do not end meanwhile."""
        (self.folder / text).touch()
        yield
        (self.folder / text).unlink()

    @property
    def memory(self) -> float:
        """MiB of RAM of the server and its children (Linux)."""
        return processes.memory(self.process.pid)

    @property
    def files(self) -> int:
        """Open file descriptors of the server (Linux)."""
        return processes.open_files(self.process.pid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def stub_server(folder: Path, delay: float = 0.02) -> Iterator[Running]:
    """The app over the stub, ready; killed at the end if it still runs."""
    port = free_port()
    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.app.serving", str(port), str(delay)],
            cwd=ROOT,
            env=os.environ | {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        running = Running(process, port, folder)
        running.wait_until(running.answers)
        yield running
    finally:
        process.kill()
        process.wait()


def uploaded(path: Path) -> dict[str, Any]:
    """A file in the upload folder, as a client names it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def post(address: str, route: str, body: Any, **headers: str) -> Any:
    """The JSON answer to a JSON body."""
    headers = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(
        f"{address}gradio_api/{route}", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def join(address: str, endpoint: str, data: list | dict[str, Any], **headers: str) -> str:
    """Ask for a call, with its values in order or by name; returns the event's id."""
    if isinstance(data, dict):
        return post(address, f"call/v2/{endpoint}", data, **headers)["event_id"]
    return post(address, f"call/{endpoint}", {"data": data}, **headers)["event_id"]


def result(address: str, endpoint: str, event: str, seconds: float = 120) -> tuple[str, Any]:
    """`complete` or `error` and what came with it, once the event has ended.

    Raises:
        TimeoutError: it did not end; a stream that sends but heartbeats would outlive a time limit
            of the socket.
    """
    deadline = time.monotonic() + seconds
    route = f"{address}gradio_api/call/{endpoint}/{event}"
    lines = []
    with urllib.request.urlopen(route, timeout=seconds) as stream:
        for line in stream:
            lines += line.decode().strip().split(": ", 1)[1:]
            if time.monotonic() > deadline:
                raise TimeoutError(f"no result within {seconds} s")
    return lines[-2], json.loads(lines[-1])


def call(
    address: str, endpoint: str, data: list | dict[str, Any], **headers: str
) -> tuple[str, Any]:
    return result(address, endpoint, join(address, endpoint, data, **headers))


class Telling(StubPredictor):
    """Says what it begins and how much is at work then; ends no call about a text while there is a
    file of that name; breaks at the text "broken"."""

    def work(self, text: str) -> None:
        print(f"at work {self._now}: {text}", flush=True)
        super().work(text)
        if text == "broken":
            raise RuntimeError("the model broke")
        while "held" in text and (Path(os.environ["GRADIO_TEMP_DIR"]) / text).exists():
            time.sleep(0.01)


def main() -> None:
    from app import build_demo
    from app.service.server import serve

    port, delay = int(sys.argv[1]), float(sys.argv[2])
    stub = Telling(delay=delay)
    serve(build_demo(lambda name: stub, ("stub",), stored={}, workers=1), port=port)


if __name__ == "__main__":
    main()
