"""Hours of mixed visits to the app with the bundled model, at half of what it can answer:
`python -m benchmarks.soak [--minutes 120] [--rate 1.5]`.

Visitors come at random times, whatever the server does (an open loop), and ask about images and
videos, send files that cannot be read, leave before the answer, or open the page. Every minute
counts; at the end stand the growth of memory an hour after the warm-up, the open files, the
temporary files, and every answer that nobody can explain, by kind.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from app.scenes import fresh_scene, save_scene
from benchmarks import processes
from benchmarks.app import load_average, make_pictures
from benchmarks.serving import CALLS, HttpClient, Row, crowd, opened, server, wait_until

SHARE = 0.5  # of the capacity
WARM_UP = 0.25  # of the minutes, that do not count for the growth
GROWTH_BAR, TEMP_BAR = 10.0, 2048.0  # MiB an hour, MiB
# Names of events and numbers, by which errors of one kind differ.
NUMBERS = re.compile(r"[0-9a-f]{6,}|[0-9]+")


@dataclass
class Visits:
    """What visitors do and met, by name."""

    client: HttpClient
    address: str
    images: list[Path]
    videos: list[Path]
    broken: list[Path]
    met: Counter = field(default_factory=Counter)
    unexplained: Counter = field(default_factory=Counter)

    def come(self, chance: random.Random) -> None:
        visits: dict[Callable, int] = {self.ask: 80, self.ask_video: 8, self.fail: 6,
                                       self.leave: 3, self.look: 3}  # fmt: skip
        (visit,) = chance.choices(list(visits), list(visits.values()))
        try:
            self.met[visit(chance)] += 1
        except Exception as error:  # every one of them is a finding
            text = str(error)
            if "[busy/" in text:
                self.met["refused as busy"] += 1
            else:
                kind = f"{visit.__name__}: {type(error).__name__} {NUMBERS.sub('#', text)[:200]}"
                self.unexplained[kind] += 1

    def ask(self, chance: random.Random) -> str:
        name = chance.choice(list(CALLS))
        self.client.predict(chance.choice(self.images), name, **CALLS[name])
        return "answered"

    def ask_video(self, chance: random.Random) -> str:
        name = chance.choice(["caption", "ask", "match"])
        self.client.predict(chance.choice(self.videos), name, **CALLS[name])
        return "answered about a video"

    def fail(self, chance: random.Random) -> str:
        try:
            self.client.predict(chance.choice(self.broken), "match", **CALLS["match"])
        except RuntimeError as refused:
            if "[image/" in str(refused) or "[video/" in str(refused):
                return "told that the file cannot be read"
            raise
        raise AssertionError("a broken file was answered")

    def leave(self, chance: random.Random) -> str:
        """Asks, opens the stream and closes it at once."""
        event = self.client.ask(chance.choice(self.images), "caption")
        self.client.stream("caption", event).close()
        return "left before the answer"

    def look(self, chance: random.Random) -> str:
        for route in ("", "config", "gradio_api/info"):
            opened(self.address + route).read()
        return "opened the page"


def sample(process: int, folder: Path) -> tuple[float, int, float]:
    """MiB of RAM of the server and its children, its open files, MiB of temporary files (Linux)."""
    used = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            used += path.stat().st_size
    return processes.memory(process), processes.open_files(process), used / 2**20


def soak(running: SimpleNamespace, visits: Visits, rate: float, minutes: float) -> list[tuple]:
    """Visits at this rate; returns (hours since the beginning, *sample) for every minute."""
    chance, samples = random.Random(0), []
    begun = came = reported = time.monotonic()
    while came < begun + 60 * minutes:
        came += chance.expovariate(rate)
        time.sleep(max(0.0, came - time.monotonic()))
        visitor = random.Random(chance.random())
        threading.Thread(target=visits.come, args=(visitor,), daemon=True).start()
        if came - reported >= 60:
            reported = came
            samples.append(((came - begun) / 3600, *sample(running.process.pid, running.folder)))
            met = dict(visits.met) | dict(visits.unexplained)
            print(f"{(came - begun) / 60:.0f} min: {samples[-1][1:]} {met}", file=sys.stderr)
    return samples


def report(visits: Visits, samples: list[tuple], rate: float, minutes: float) -> list[Row]:
    kept = [one for one in samples if one[0] * 60 >= WARM_UP * minutes] or samples
    hours, memory, files, temporary = zip(*kept, strict=True)
    growth = statistics.linear_regression(hours, memory).slope if len(kept) > 1 else None
    return [
        Row("minutes", minutes, "", None, f"{rate:.2f} visits a second"),
        *(Row(f"visits: {name}", count, "") for name, count in visits.met.most_common()),
        Row("visits: unexplained", visits.unexplained.total(), "", 0),
        *(Row("unexplained", count, "", 0, kind) for kind, count in visits.unexplained.items()),
        Row("memory, first and last", memory[0], "MiB", None, f"{memory[-1]:.0f} MiB"),
        Row("memory: growth an hour after the warm-up", growth, "MiB", GROWTH_BAR),
        Row("open files, first and last", files[0], "", None, str(files[-1])),
        Row("temporary files: most", max(temporary), "MiB", TEMP_BAR),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, help="visits a second, instead of that half")
    options = parser.parse_args(arguments)
    minutes = options.minutes
    with tempfile.TemporaryDirectory() as place, server() as running:
        folder = Path(place)
        clips = [
            save_scene("video", fresh_scene("video", k)[0], folder / f"clip{k}") for k in range(3)
        ]
        broken = [folder / "cut.png", folder / "page.jpg", folder / "empty.mp4"]
        images = make_pictures(folder)
        broken[0].write_bytes(images[0].read_bytes()[:400])
        broken[1].write_bytes(b"<html>not found</html>")
        broken[2].write_bytes(b"")
        wait_until(running, "readyz", seconds=600)
        begin = load_average("begin")
        rate = options.rate or SHARE * crowd(running, images, 4)[2].value
        visits = Visits(HttpClient(running.address), running.address, images, clips, broken)
        samples = soak(running, visits, rate, minutes)
        rows = [begin, *report(visits, samples, rate, minutes), load_average("end")]
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
