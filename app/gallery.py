"""Failures of the bundled models, as their cards show them.

`python -m app.gallery` asks `mini` about fresh scenes until it has been wrong in enough ways, and
writes what it found into its card. Those of `photo` were chosen by its author.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from x2vlm.hub import bundled_dir

from . import html
from .i18n import say
from .scenes import WORLD_MODEL, fresh_scene, truth_of

ROW = re.compile(r"^\| !\[[^]]*\]\((failure-\d+\.jpg)\)[^|]*\| ([^|]+) \| ([^|]+) \|$", re.M)
SECTION = re.compile(r"## \w+ failures\n.*?(?=^## |\Z)", re.M | re.S)
MOST, SIDE, SCENES = 8, 224, range(1000, 1400)
INTRO = """## Eight failures

The first mistake of each kind in fresh scenes from number 1000 on (`python -m app.gallery`).

| scene | what `mini` says | what is there |
|---|---|---|
"""


@dataclass(frozen=True)
class Failure:
    """An image, what the model said of it, and what is there."""

    image: Path
    said: str
    truth: str


def failures(model: str) -> list[Failure]:
    """The failures in the card of a bundled model."""
    folder = bundled_dir(model)
    if folder is None or not (folder / "README.md").is_file():
        return []
    rows = ROW.findall((folder / "README.md").read_text(encoding="utf-8"))
    return [Failure(folder / name, said.strip(), truth.strip()) for name, said, truth in rows]


def gallery(model: str) -> str:
    """The failures of a bundled model as HTML; nothing where its card has none."""
    cards = "".join(
        f"<figure>{html.thumbnail(Image.open(one.image), SIDE, one.truth)}<figcaption>"
        f"<b>{html.escape(one.said)}</b><br>{html.escape(one.truth)}</figcaption></figure>"
        for one in failures(model)
    )
    title = f"<h3>{say('failures_of', model=model)}</h3>"
    return f'{title}<div class="failures">{cards}</div>' if cards else ""


def wrong_answers(predictor: Any) -> Iterator[tuple[Image.Image, int, str, str]]:
    """Scenes that the model answers wrong: image, number, what was asked and said, the truth; one
    for every kind of question."""
    kinds = set()
    for number in SCENES:
        (image,), truth = fresh_scene("image", number)
        scene = predictor.encode(image)
        for asked in truth["questions"]:
            said = predictor.answer(scene, asked["question"]).best
            if said != asked["answer"] and asked["kind"] not in kinds:
                kinds.add(asked["kind"])
                yield image, number, f'{asked["question"]} "{said}"', f'"{asked["answer"]}"'
                break
        absent = truth_of(truth)["absent"][:2]
        for found in predictor.ground(scene, absent, explain=False) if absent else ():
            if found.verdict == "found" and "absent" not in kinds:
                kinds.add("absent")
                yield image, number, f'found: "{found.phrase}"', "it is not there"


def measure(load: Callable[[str], Any]) -> None:
    """Write the failures of `mini` into its card and beside it."""
    folder = bundled_dir(WORLD_MODEL)
    rows = []
    for place, (image, number, said, truth) in enumerate(wrong_answers(load(WORLD_MODEL)), 1):
        image.resize((SIDE, SIDE)).save(folder / f"failure-{place}.jpg", quality=85)
        rows.append(f"| ![scene {number}](failure-{place}.jpg) scene {number} | {said} | {truth} |")
        if place == MOST:
            break
    card = folder / "README.md"
    text = SECTION.sub("", card.read_text(encoding="utf-8"))
    before, licence = text.rsplit("Licence of the weights", 1)
    section = INTRO + "\n".join(rows) + "\n"
    card.write_text(f"{before}{section}\nLicence of the weights{licence}", encoding="utf-8")


if __name__ == "__main__":
    from x2vlm import Predictor

    measure(Predictor.from_pretrained)
