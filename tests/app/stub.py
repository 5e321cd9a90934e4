"""A deterministic stand-in for the Predictor: real result types, answers that depend on the input
alone, no model."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from x2vlm.errors import CheckpointError
from x2vlm.media import OpenedVideo, open_media
from x2vlm.results import (
    Agreement,
    Answer,
    Answers,
    Caption,
    DeletionCheck,
    Explanation,
    Grounding,
    Match,
    Word,
)

GRID = 8
CAPTION = "a red car and a small dog on the grass"


@dataclass(frozen=True, eq=False)
class Scene:
    kind: str
    image: Image.Image
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    size: tuple[int, int]
    duration: float
    notes: tuple[str, ...] = ()


def unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8], 16) / 2**32


def pixels_of(scene: Any) -> str:
    """A name for what is in the image, so that answers about different images differ."""
    return hashlib.sha256(scene.image.tobytes()).hexdigest()[:12]


def split_words(text: str, probable: bool = False) -> tuple[Word, ...]:
    return tuple(
        Word(m[0], m.start(), m.end(), unit(m[0]) if probable else None)
        for m in re.finditer(r"\S+", text)
    )


@dataclass
class StubPredictor:
    """Counts its calls; `delay` makes it slow, and `most_at_once` tells how many calls
    overlapped."""

    missing: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    calls: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    info = SimpleNamespace(
        name="stub",
        hash="0123456789ab",
        device="cpu",
        dtype="float32",
        image_size=(128, 128),
        grid_size=(GRID, GRID),
        num_frames=4,
        num_layers=3,
        num_heads=4,
        parameters=0,
        thresholds=(0.3, 0.7),
        note="A stand-in for tests.",
        example="is there a dog?",
    )

    def work(self, text: str) -> None:
        """What every call does, with what it is about."""
        time.sleep(self.delay)

    def _work(self, name: str, text: str = "") -> None:
        if name in self.missing:
            raise CheckpointError(self.missing[name], "ckpt/keys")
        with self._lock:
            self.calls.append(name)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.work(text)
        finally:
            with self._lock:
                self._now -= 1

    def encode(self, media: Any, *, cancel: Any = None, **_: Any) -> Scene:
        self._work("encode")
        opened = open_media(media) if isinstance(media, str | Image.Image) else media
        if isinstance(opened, Scene):
            return opened
        if isinstance(opened, OpenedVideo):
            middle = opened.frames[len(opened.frames) // 2]
            return Scene(
                "video",
                middle,
                opened.frames,
                opened.indices,
                opened.times,
                opened.size,
                opened.duration,
                opened.notes,
            )
        return Scene(
            "image", opened.pixels, (opened.pixels,), (0,), (0.0,), opened.size, 0.0, opened.notes
        )

    def caption(
        self, scene: Scene, *, num_captions: int = 1, prefix: str | None = None, **_: Any
    ) -> Any:
        if isinstance(scene, list):
            return [self.caption(self.encode(one), num_captions=num_captions) for one in scene]
        self._work("caption")
        seen = pixels_of(scene)
        texts = [CAPTION, "a car", "a dog on grass", "grass", "a picture"][:num_captions]
        return tuple(
            Caption(
                t,
                -1.0 - k,
                tuple(t.split()),
                (-0.1,) * len(t.split()),
                split_words(t, True),
                0.9 - 0.1 * (k + unit(seen)),
            )
            for k, t in enumerate(texts)
        )

    def answer(
        self,
        scene: Any,
        question: str,
        *,
        choices: Any = None,
        top_k: int = 5,
        mode: Any = None,
        **_: Any,
    ) -> Answers:
        scene = self.encode(scene) if isinstance(scene, Image.Image) else scene
        self._work("answer")
        yes_or_no = question.startswith(("is ", "are ", "can "))
        texts = ["yes", "no"] if yes_or_no else ["red", "blue", "two", "yes", "no"]
        texts = (choices or texts)[:top_k]
        weights = np.array([2.0**-k for k in range(len(texts))])
        weights[0] += unit(pixels_of(scene) + question)
        found = tuple(Answer(t, float(p)) for t, p in zip(texts, weights / weights.sum()))
        return Answers(question, found, mode or "rank")

    def ground(
        self,
        scene: Scene,
        phrases: Any,
        *,
        explain: bool = True,
        frame: int | None = None,
        **_: Any,
    ):
        self._work("ground")
        return tuple(
            self._ground(scene, phrase, explain, frame)
            for phrase in ([phrases] if isinstance(phrases, str) else phrases)
        )

    def _ground(self, scene: Scene, phrase: str, explain: bool, frame: int | None) -> Grounding:
        width, height = scene.size
        seen = pixels_of(scene)
        x, y = 0.6 * unit(phrase + seen), 0.6 * unit(phrase + "y" + seen)
        box = (x * width, y * height, (x + 0.3) * width, (y + 0.3) * height)
        match = 0.05 if "unicorn" in phrase else 0.5 + 0.49 * unit(phrase + "m")
        verdict = "absent" if match < 0.3 else "found" if match >= 0.7 else "unsure"
        why = self._explanation(scene, phrase, "match", "gradient", None) if explain else None
        agreement = Agreement(True, 0.74, 0.09) if explain else None
        if frame is None and scene.kind == "video":
            frame = len(scene.frames) // 2
        return Grounding(
            phrase, box, (x + 0.15, y + 0.15, 0.3, 0.3), match, verdict, why, agreement, frame
        )

    def explain(
        self,
        scene: Scene,
        text: str,
        *,
        target: str = "match",
        layer: int | None = None,
        method: str = "gradient",
        answer: str = "",
        **_: Any,
    ) -> Explanation:
        self._work("explain")
        found = scene, text, target or "match", method or "gradient", layer
        return self._explanation(*found, answer or "")

    def _explanation(
        self,
        scene: Scene,
        text: str,
        target: str,
        method: str,
        layer: int | None,
        answer: str = "",
    ) -> Explanation:
        words, seen = split_words(text), pixels_of(scene)
        rows, columns = np.mgrid[0:GRID, 0:GRID]
        maps = []
        for word in words:
            y, x = GRID * unit(word.text + answer), GRID * unit(word.text + "c")
            spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)
            maps.append(spot * unit(word.text + "h" + seen))
        if "flat" in text:
            maps = [np.zeros((GRID, GRID)) for _ in words]
        stack = np.array(maps, np.float32)
        return Explanation(text, words, stack, stack.mean(axis=0), target, method, layer, 0.8)

    def match(self, scene: Any, texts: list[str], **_: Any) -> Any:
        if isinstance(scene, list):
            return [self.match(self.encode(one), texts) for one in scene]
        self._work("match", texts[0] if texts else "")
        seen = pixels_of(scene)
        return tuple(
            Match(text, unit(text + seen), unit(text + "s" + seen) - 0.5) for text in texts
        )

    def match_over_time(self, scene: Scene, text: str, **_: Any) -> tuple[tuple[float, float], ...]:
        self._work("match_over_time")
        return tuple((time, unit(f"{text}{time}")) for time in scene.times)

    def describe_region(
        self, scene: Scene, box: Any, *, phrases: list[str] | None = None, **_: Any
    ) -> Any:
        self._work("describe_region")
        return SimpleNamespace(
            captions=self.caption(scene), matches=self.match(scene, phrases or [])
        )

    def deletion_check(self, scene: Scene, explanation: Explanation, **_: Any) -> DeletionCheck:
        self._work("deletion_check")
        steps = tuple(k / 10 for k in range(11))
        return DeletionCheck(
            steps, tuple(0.9 - 0.8 * s for s in steps), tuple(0.9 - 0.4 * s for s in steps), 0.2
        )
