"""Bundled examples with stored results, and fresh sticker scenes with their ground truth.

`python -m app.examples` writes `assets/examples` anew: scenes of the sticker world and what the
bundled model says of them.
"""

from __future__ import annotations

import json
import random
import re
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from x2vlm import stickers
from x2vlm.media import write_video
from x2vlm.results import Answers, Caption, Explanation, Grounding, Match

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "examples"
RESULTS = {
    "caption": tuple[Caption, ...],
    "answer": Answers,
    "ground": tuple[Grounding, ...],
    "explain": Explanation,
    "match": tuple[Match, ...],
}
SCENE_SIZE = 448
CLIP_FPS = 4.0
# name, kind and number of the scene
BUNDLED = (
    ("scene", "image", 10),
    ("scene-2", "image", 42),
    ("scene-3", "image", 46),
    ("clip", "video", 95),
)
# fresh scenes to draw from, numbered from the end of the test split's seeds: evaluation takes its
# beginning
SCENES = 100_000


@dataclass(frozen=True)
class Texts:
    """What to put into the tabs' fields for one picture or clip."""

    question: str
    phrases: str
    text: str
    texts: str


@dataclass(frozen=True, eq=False)
class Example:
    """A picture or clip with texts for every tab; stored results belong to the model with hash
    `model`."""

    name: str
    kind: str
    path: Path
    texts: Texts
    model: str = ""
    results: dict[str, Any] = field(default_factory=dict)


def load_examples(folder: Path = FOLDER) -> dict[str, Example]:
    """The bundled examples by name, in their order."""
    found = {}
    for name, kind, _ in BUNDLED:
        file = folder / f"{name}.json"
        if file.is_file():
            stored = json.loads(file.read_text())
            results = {
                task: restore(RESULTS[task], value) for task, value in stored["results"].items()
            }
            path = folder / stored["media"]
            found[name] = Example(
                name, kind, path, Texts(**stored["texts"]), stored["model"], results
            )
    return found


def restore(kind: Any, value: Any) -> Any:
    """The inverse of a result's `to_dict()`."""
    if value is None:
        return None
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if kind is np.ndarray:
        return np.asarray(value, np.float32)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(
            **{
                f.name: restore(hints[f.name], value[f.name])
                for f in fields(kind)
                if f.name in value
            }
        )
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(restore(inner, item) for item in value)
    return value


def fresh_scene(kind: str, number: int) -> tuple[list[Image.Image], dict[str, Any]]:
    """Frames (one for a picture) and the truth of the scene of this number, which training has
    never seen."""
    seed = stickers.split_seeds("test")[-1 - number]
    make = stickers.make_video_record if kind == "video" else stickers.make_record
    record = make(seed, "test", SCENE_SIZE)
    truth = {
        key: record[key] for key in ("captions", "regions", "questions", "absent") if key in record
    }
    return list(record["frames"]) if kind == "video" else [record["image"]], truth


def texts_for(truth: dict[str, Any], number: int) -> Texts:
    """Questions, phrases (one of them for what is absent) and texts that suit a scene. The last
    caption of a clip is a list."""
    rng = random.Random(number)
    absent = truth.get("absent") or []
    regions = truth.get("regions", [])
    captions = truth["captions"]
    named = {tuple(region["box"]): region["text"] for region in regions}.values() or re.split(
        ", | and ", captions[-1]
    )
    phrases = [*list(named)[:3], *absent[:1]]
    question = (
        rng.choice(truth["questions"])["question"] if truth.get("questions") else "what is there?"
    )
    return Texts(question, "\n".join(phrases), captions[0], "\n".join([*captions[:2], *absent[:3]]))


def save_scene(kind: str, frames: list[Image.Image], stem: Path) -> Path:
    """The file of a scene, PNG or MP4."""
    if kind == "video":
        return write_video(frames, CLIP_FPS, stem.with_suffix(".mp4"))
    path = stem.with_suffix(".png")
    frames[0].save(path)
    return path


def tour(run: Callable[..., Any], texts: Texts) -> dict[str, Any]:
    """One answer for every tab; `run(task, *args, **options)` calls the model. Tasks that it lacks
    are left out."""
    results = {
        "caption": run("caption"),
        "answer": run("answer", texts.question),
        "ground": run("ground", texts.phrases.split("\n"), explain=True),
        "explain": run("explain", texts.text),
        "match": run("match", texts.texts.split("\n")),
    }
    return {task: result for task, result in results.items() if result is not None}


def build(predictor: Any, folder: Path = FOLDER) -> None:
    """Write the bundled examples with what the model says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, number in BUNDLED:
        frames, truth = fresh_scene(kind, number)
        path = save_scene(kind, frames, folder / name)
        if kind == "video":
            frames[len(frames) // 2].save(path.with_suffix(".jpg"))
        texts = texts_for(truth, number)
        scene = predictor.encode(str(path))
        results = tour(
            lambda task, *args, _scene=scene, **options: getattr(predictor, task)(
                _scene, *args, **options
            ),
            texts,
        )
        stored = {
            "media": path.name,
            "model": predictor.info.hash,
            "scene": number,
            "texts": asdict(texts),
        }
        stored["results"] = {task: _plain(result) for task, result in results.items()}
        (folder / f"{name}.json").write_text(
            json.dumps(stored, separators=(",", ":"), ensure_ascii=False) + "\n"
        )


def _plain(value: Any) -> Any:
    """JSON values with floats to six significant digits."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return _plain(value.to_dict()) if hasattr(value, "to_dict") else value


if __name__ == "__main__":
    from x2vlm.inference.predictor import Predictor

    build(Predictor.from_pretrained("mini"))
