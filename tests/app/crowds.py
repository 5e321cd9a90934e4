"""Many callers of a served app, and what each of them met."""

from __future__ import annotations

import json
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from app import limits
from tests.app.serving import Running, join, result, uploaded
from tests.app.stub import StubPredictor


def make_pictures(folder: Path) -> list[Path]:
    """More than the server keeps encoded, all of one name."""
    made = [folder / str(k) / "picture.png" for k in range(limits.SCENES + 4)]
    for k, path in enumerate(made):
        path.parent.mkdir()
        Image.effect_noise((60, 40), 30 + 5 * k).convert("RGB").save(path)
    return made


def matched(path: Path, text: str) -> list[dict]:
    """What the stub says of a file when it is asked directly."""
    stub = StubPredictor()
    return json.loads(
        json.dumps([found.to_dict() for found in stub.match(stub.encode(str(path)), [text])])
    )


@dataclass
class Tally:
    """Seconds of every right answer and of every refusal; anything else has failed the test."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def visit(self, running: Running, picture: Path, text: str) -> None:
        start = time.perf_counter()
        try:
            event = join(running.address, "match", [uploaded(picture), [text]])
        except urllib.error.HTTPError as refusal:
            told = refusal.read().decode()
            assert (
                refusal.code == 503
                and "[busy/queue]" in told
                and f"about {refusal.headers['Retry-After']} s" in told
            )
            self.refused.append(time.perf_counter() - start)
            return
        name, data = result(running.address, "match", event)
        assert name == "complete" and data[0]["matches"] == matched(picture, text)
        self.answered.append(time.perf_counter() - start)


def crowd(running: Running, pictures: list[Path], users: int, calls: int) -> Tally:
    """`calls` calls by `users` at a time, each about another image with another text."""
    tally = Tally()
    with ThreadPoolExecutor(users) as pool:
        list(
            pool.map(
                lambda k: tally.visit(running, pictures[k % len(pictures)], f"text {k}"),
                range(calls),
            )
        )
    assert len(tally.answered) + len(tally.refused) == calls
    return tally


def percentile(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[int(percent / 100 * (len(seconds) - 1))]
