"""Bundled examples with stored results.

`python -m app.examples` asks every example's own model anew and writes `assets/examples`; it is due
when the weights of a bundled model have changed. An example is a JSON file there (media, texts,
model, truth) beside its image or video.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from x2vlm.errors import X2VLMError
from x2vlm.hub import BUNDLED, bundled_dir, sha256_of
from x2vlm.results import Answers, Caption, Explanation, Grounding, Match

from .scenes import WORLD_MODEL, fresh_scene, save_scene, texts_for, truth_of
from .service.models import Models
from .service.runner import Runner
from .state import MediaRef, Preview, Result, Texts, ViewState
from .tab import Asker

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "examples"
KINDS = {
    "caption": Caption,
    "answer": Answers,
    "ground": Grounding,
    "explain": Explanation,
    "match": Match,
}
"""Task -> the type of what it found. Results of other tasks are not stored."""
DISPLAY_SIDE = 960


@dataclass(frozen=True, eq=False)
class Example:
    """An image or video with texts for every tab.

    Attributes:
        model: name of the model that knows it.
        hash: of the weights that gave the stored `results`, which are shown under no others.
        results: name of a tab -> its stored result.
        truth: what is right of the texts: `answers` by question, phrases that are `absent`, texts
            that are `captions`. The other phrases are there, the other texts are not true.
    """

    name: str
    kind: str
    path: Path
    texts: Texts
    model: str = WORLD_MODEL
    hash: str = ""
    results: dict[str, Result] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)

    def on_stage(self, weights: str | None) -> ViewState:
        """The example as the page paints it first, without any model; its results only under the
        weights that gave them."""
        image = Image.open(self.path).convert("RGB")
        size = image.size
        image.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE), Image.Resampling.LANCZOS)
        preview = Preview("image", self.path.name, size, (image,), (0,), (0.0,), ())
        results = self.results if weights and weights == self.hash else {}
        origin = f"example={self.name}"
        return ViewState(MediaRef(str(self.path)), preview, origin, self.texts, results=results)


def thumbnail_of(example: Example) -> Image.Image:
    """The image itself, or the stored frame of a video."""
    path = example.path if example.kind == "image" else example.path.with_suffix(".jpg")
    return Image.open(path).convert("RGB")


def load_examples(tabs: Sequence[Any] = (), folder: Path = FOLDER) -> dict[str, Example]:
    """The bundled examples by name, in the order that their files say; `tabs` restore their own
    results."""
    makers = {tab.name: tab for tab in tabs}
    found = []
    for file in sorted(folder.glob("*.json")):
        stored = json.loads(file.read_text(encoding="utf-8"))
        texts = Texts(**stored["texts"] | {"questions": tuple(stored["texts"]["questions"])})
        results = {
            name: _restored(makers[name], kept)
            for name, kept in stored.get("results", {}).items()
            if name in makers
        }
        path = folder / stored["media"]
        kind = "video" if path.suffix == ".mp4" else "image"
        example = Example(
            file.stem,
            kind,
            path,
            texts,
            stored["model"],
            stored.get("hash", ""),
            results,
            stored.get("truth", {}),
        )
        found.append((stored.get("order", 0), example))
    return {example.name: example for _, example in sorted(found, key=lambda pair: pair[0])}


def bundled_hash(model: str) -> str | None:
    """First 12 hex digits of a bundled model's weights, as `ModelInfo.hash`; None for others, which
    must be loaded to know."""
    folder = bundled_dir(model) if model in BUNDLED else None
    return None if folder is None else sha256_of(folder / "model.safetensors")[:12]


def _restored(tab: Any, kept: dict[str, Any]) -> Result:
    task = kept["task"]
    found = tuple(restore(KINDS[task], value) for value in kept["found"])
    maps = tuple(restore(Explanation, value) for value in kept["maps"])
    return Result(task, found, tab.layers(found, maps), kept["asked"], kept["settings"])


def _stored(result: Result, suggested: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON values; maps that are no part of what was found go beside it. Only the
    suggested fields are compared with those on the page, as the others are the model's own."""
    apart = result.task in ("caption", "answer")
    maps = [layer.explanation for layer in result.layers] if apart else []
    asked = suggested | {"model": result.asked["model"], "region": None}
    values = {"task": result.task, "found": result.found, "maps": maps, "asked": asked}
    return _plain(values | {"settings": result.settings})


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


def tour(tabs: Sequence[Any], asker: Any, texts: Texts) -> dict[str, Result]:
    """Every tab's answer about what an asker sees, as if its button had been pressed; tabs for
    which the model lacks a head, and those with nothing to ask, are left out."""
    found = {}
    for tab in tabs:
        if not tab.tours:
            continue
        try:
            found[tab.name] = tab.run(
                asker, tab.defaults | tab.own(asker.info) | tab.suggest(texts)
            )
        except X2VLMError:
            continue
    return found


def _plain(value: Any) -> Any:
    """JSON values with floats to six significant digits."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return _plain(value.to_dict()) if hasattr(value, "to_dict") else value


def rebuild(load: Callable[[str], Any], tabs: Sequence[Any], folder: Path = FOLDER) -> None:
    """Ask every example's own model anew; a sticker scene is rendered from its number first."""
    runner = Runner(Models(load, open_choice=True))
    for file in sorted(folder.glob("*.json")):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if (number := kept.get("scene")) is not None:
            kind = "video" if kept["media"].endswith(".mp4") else "image"
            frames, truth = fresh_scene(kind, number)
            path = save_scene(kind, frames, folder / file.stem)
            if kind == "video":
                frames[len(frames) // 2].save(path.with_suffix(".jpg"))
            kept["texts"] = asdict(texts_for(truth, number))
            kept["truth"] = truth_of(truth)
        texts = Texts(**kept["texts"] | {"questions": tuple(kept["texts"]["questions"])})
        media = MediaRef(str(folder / kept["media"]))
        state = ViewState(media, runner.preview(media, kept["model"], ""), texts=texts)
        if state.is_video:
            state = dataclasses.replace(state, frame=len(state.preview.frames) // 2)
        results = tour(tabs, Asker(runner, "", state, kept["model"]), texts)
        kept["hash"] = runner.models[kept["model"]].info.hash
        kept["results"] = {
            tab.name: _stored(results[tab.name], tab.suggest(texts))
            for tab in tabs
            if tab.name in results
        }
        text = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    from x2vlm import Predictor

    from .tabs import TABS

    rebuild(Predictor.from_pretrained, [tab() for tab in TABS])
