"""Events that bring a picture or clip onto the stage: upload, other frames, example, new scene,
link."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from PIL import Image

from x2vlm.errors import CheckpointError, X2VLMError

from . import cards, examples, inputs, limits, panels
from .examples import Example, Texts
from .i18n import TEXT, say
from .service.gradio_patches import results_folder
from .service.queue import STOP_FLAG
from .service.runner import Runner, shrunk
from .state import MediaRef, Preview
from .tabs.inspect import head_choices, layer_choices
from .view import Look, Shown, focus, loaded, present, with_result

LENS_TASKS = {
    "describe": "caption",
    "ask": "answer",
    "find": "ground",
    "inspect": "explain",
    "match": "match",
}
TABS = (*LENS_TASKS, "about")


def newest(bring: Callable) -> Callable:
    """Of a visitor's arrivals the newest counts, in whatever order they end: an older one is
    stopped and changes nothing.

    What the visitor asked meanwhile is stopped too, for it is about the picture that leaves.
    """

    @functools.wraps(bring)
    def alone(self: Arrivals, request: gr.Request, *args: Any) -> Any:
        visitor, mine = request.session_hash or "", STOP_FLAG.get() or threading.Event()
        if older := self.newest.get(visitor):
            older.set()
        self.newest[visitor] = mine
        try:
            values = bring(self, request, *args)
        except X2VLMError:
            if self.newest.get(visitor) is mine:
                raise
            return gr.skip()
        if self.newest.get(visitor) is not mine:
            return gr.skip()
        if isinstance(values, list):
            self.runner.jobs.cancel(visitor)
        return values

    return alone


class Arrivals:
    """What puts media on the stage. `stage(...)` gives the values that all of them share.

    Attributes:
        first: the example that the page is painted with.
        newest: the stop flag of each visitor's newest arrival, as long as that is under way.
    """

    def __init__(self, runner: Runner, stored: dict[str, Example], first: Shown | None = None):
        self.runner, self.stored, self.first = runner, stored, first
        self.newest: WeakValueDictionary[str, threading.Event] = WeakValueDictionary()

    @newest
    def upload(self, request: gr.Request, path: str | None, look: Look, model: str) -> list[Any]:
        """An uploaded file, not asked about yet."""
        if path is None:
            return stage(None, look, {})
        return stage(Shown(*self._look(request, MediaRef(path), model)), look, {})

    @newest
    def clear(self, request: gr.Request, look: Look) -> list[Any]:
        """An emptied uploader empties the stage."""
        return stage(None, look, {})

    @newest
    def use_frames(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        count: float,
        numbers: str,
    ) -> list[Any]:
        """Other frames of the same clip."""
        indices = inputs.frame_numbers(numbers)
        count = inputs.number(count, "The number of frames", 1, limits.FRAMES)
        media = dataclasses.replace(loaded(shown).media, num_frames=count, indices=indices)
        media, seen = self._look(request, media, model)
        return stage(
            Shown(media, dataclasses.replace(seen, name=shown.seen.name), shown.origin), look, {}
        )

    @newest
    def new_scene(self, request: gr.Request, kind: str, look: Look, model: str) -> list[Any]:
        """A scene that nobody has seen, asked about in every tab, with its truth."""
        return self._scene(request, kind, random.randrange(examples.SCENES), look, model)

    @newest
    def example(
        self, request: gr.Request, event: gr.SelectData, look: Look, model: str
    ) -> list[Any]:
        """A bundled example with its stored results, or fresh ones if they are another model's."""
        return self._example(request, list(self.stored)[event.index], look, model)

    def open(self, request: gr.Request) -> list[Any]:
        """At once with the page: the first example, which is painted already, onto the stage, and
        the tab of the address."""
        tab = request.query_params.get("tab")
        return [self.first, gr.update(selected=tab) if tab in TABS else gr.skip()]

    @newest
    def arrive(self, request: gr.Request, look: Look, model: str) -> Any:
        """What the page's address asks for; else the first example anew, if its stored results are
        another model's."""
        wish = request.query_params
        if wish.get("example") in self.stored:
            return self._example(request, wish["example"], look, model)
        if re.fullmatch(r"\d{1,9}", wish.get("scene", "")) and wish.get("kind") in (
            "image",
            "video",
        ):
            return self._scene(
                request, wish["kind"], int(wish["scene"]) % examples.SCENES, look, model
            )
        first = next((example for example in self.stored.values() if example.kind == "image"), None)
        if first is not None and first.model != self.runner.models[model].info.hash:
            return self._example(request, first.name, look, model)
        return gr.skip()

    def model_status(self, model: str) -> list[Any]:
        """Which model answers, which tabs it greys out and why, and its own match cut-offs."""
        predictor = self.runner.models[model]
        info = predictor.info
        status = say("ready", name=info.name, device=info.device, hash=info.hash)
        lacks = "".join(
            cards.note("lacks_video" if task == "video" else "lacks", "warn", task=task, reason=why)
            for task, why in predictor.missing.items()
        )
        about = cards.note(
            "mini_note" if info.note == TEXT["mini_note"][0] else "remark", text=info.note
        )
        notes = [about, gr.update(value=lacks, visible=bool(lacks))]
        tabs = [
            gr.update(interactive=task not in predictor.missing) for task in LENS_TASKS.values()
        ]
        choices = (layer_choices(info.num_layers), head_choices(info.num_heads))
        fusion = [gr.update(choices=names, value="default") for names in choices]
        return [cards.head(status), *notes, *tabs, *info.thresholds, *fusion]

    def stop(self, request: gr.Request) -> None:
        """Stop what this visitor has at work."""
        self.runner.jobs.cancel(request.session_hash or "")

    def _scene(
        self, request: gr.Request, kind: str, number: int, look: Look, model: str
    ) -> list[Any]:
        frames, truth = examples.fresh_scene(kind, number)
        stem = results_folder() / f"scene-{number}"
        path = examples.save_scene(kind, frames, stem)
        texts = examples.texts_for(truth, number)
        origin = f"kind={kind}&scene={number}"
        return self._filled(
            request, kind, path, origin, texts, None, look, model, truth_card(truth)
        )

    def _example(self, request: gr.Request, name: str, look: Look, model: str) -> list[Any]:
        chosen = self.stored[name]
        fresh = self.runner.models[model].info.hash == chosen.model
        results = chosen.results if fresh else None
        return self._filled(
            request,
            chosen.kind,
            chosen.path,
            f"example={name}",
            chosen.texts,
            results,
            look,
            model,
            "",
        )

    def _filled(
        self,
        request: gr.Request,
        kind: str,
        path: Path,
        origin: str,
        texts: Texts,
        results: dict[str, Any] | None,
        look: Look,
        model: str,
        truth: str,
    ) -> list[Any]:
        """The stage, then uploaders and text fields of every tab."""
        media, seen = self._look(request, MediaRef(str(path)), model)
        if results is None:
            results = examples.tour(
                lambda *args, **options: self._try(request, media, model, *args, **options), texts
            )
        values = stage(
            with_results(Shown(media, seen, origin), results, model), look, results, truth
        )
        return [
            *values,
            *source(kind, path),
            texts.question,
            texts.phrases,
            texts.text,
            texts.texts,
        ]

    def _look(self, request: gr.Request, media: MediaRef, model: str) -> tuple[MediaRef, Preview]:
        return media, self.runner.preview(media, model, request.session_hash or "")

    def _try(
        self,
        request: gr.Request,
        media: MediaRef,
        model: str,
        task: str,
        *args: Any,
        **options: Any,
    ) -> Any:
        """A result, or None where the model lacks the task."""
        try:
            return self.runner.run(task, media, model, request.session_hash or "", *args, **options)
        except CheckpointError:
            return None


def with_results(shown: Shown, results: dict[str, Any], model: str) -> Shown:
    """Every tab's result kept, the signature one on the stage: what was found, else the maps of a
    sentence."""
    for task in ("match", "caption", "answer", "explain", "ground"):
        if task in results:
            found = panels.ranked(results[task]) if task == "match" else results[task]
            every = tuple(found) if isinstance(found, Sequence) else (found,)
            shown = with_result(shown, task, every, panels.layers(task, found), {"model": model})
    return (
        focus(shown, 0, None) if shown.layers else shown
    )  # of a clip, the frame that was searched


def stage(shown: Shown | None, look: Look, results: dict[str, Any], truth: str = "") -> list[Any]:
    """Values for stage, region, downloads, frames, truth, slower looks (all at something else until
    now) and all tabs."""
    seen = shown.seen if shown else None
    clip = seen is not None and seen.kind == "video"
    strip = (
        [
            (frame, f"{n} · {time:.2f} s")
            for frame, n, time in zip(seen.frames, seen.indices, seen.times)
        ]
        if clip
        else None
    )
    hidden = gr.update(visible=False)
    view = (
        present(shown, look)
        if shown
        else [None, None, hidden, hidden, cards.note("empty_stage", "empty"), None]
    )
    return [
        *view,
        *[0] * 4,
        gr.update(value=None, visible=False),
        gr.update(value="", visible=False),
        gr.update(visible=False),
        gr.update(visible=clip),
        strip,
        gr.update(
            value="", placeholder=", ".join(map(str, seen.indices)) if clip else ""
        ),  # while empty, the count decides
        gr.update(visible=bool(truth)),
        truth,
        gr.update(visible=clip),
        gr.update(visible=clip),
        gr.update(value=None, visible=False),
        gr.update(value=None, visible=False),
        *[""] * 3,
        *panels.everything(results, seen),
    ]


def source(kind: str, path: Path) -> list[Any]:
    """Values for the choice of source and the two uploaders."""
    clip = kind == "video"
    return [
        kind,
        gr.update(value=None if clip else str(path), visible=not clip),
        gr.update(value=str(path) if clip else None, visible=clip),
    ]


def stored_shown(example: Example, model: str) -> Shown:
    """The first paint: an example with its stored results, without any model."""
    picture = Image.open(example.path).convert("RGB")
    seen = Preview(
        "image",
        example.path.name,
        picture.size,
        (shrunk(picture, limits.DISPLAY_SIDE),),
        (0,),
        (0.0,),
        (),
    )
    return with_results(
        Shown(MediaRef(str(example.path)), seen, f"example={example.name}"), example.results, model
    )


def truth_card(truth: dict[str, Any]) -> str:
    """The generator's own annotation of a scene."""
    rows = [[say("caption"), escape(text)] for text in truth["captions"][:2]]
    rows += [
        [say("question"), f"{escape(q['question'])} <b>{escape(q['answer'])}</b>"]
        for q in truth.get("questions", [])[:4]
    ]
    rows += [
        [say("region_phrase"), escape(region["text"])] for region in truth.get("regions", [])[:4]
    ]
    rows += [[say("not_there"), escape(text)] for text in truth.get("absent", [])[:3]]
    return cards.table([], rows, "truth")
