"""What brings an image or video onto the stage: upload, other frames, example, new scene, link."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import re
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from x2vlm.errors import MediaError, X2VLMError

from . import examples, html, inputs, limits, scenes
from .examples import Example
from .i18n import say
from .phrases import texts_of
from .service.gradio_patches import results_folder, upload_folder
from .service.queue import STOP_FLAG
from .service.runner import Runner
from .state import MediaRef, ViewState, loaded
from .tab import Asker, Tab

LINK_BYTES = 4000
CAPTIONS = 3  # of an upload, of which those are offered that the model is sure of
OUTSIDE = "[scene/domain]"  # how the note of an image outside a model's world ends


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What came onto the stage, None where it was emptied.

    Attributes:
        state: the stage with the results that came along.
        model: the model that answers from now on.
        truth: HTML of what is really in a scene.
        values: name of a tab -> values of its fields that a link brought.
    """

    state: ViewState | None
    model: str
    truth: str = ""
    values: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def newest(bring: Callable) -> Callable:
    """Of one session's arrivals the newest counts, in whatever order they end: an older one is
    stopped and gives None. What was asked meanwhile is stopped too, as its image leaves."""

    @functools.wraps(bring)
    def alone(self: Uploads, session: str, *args: Any) -> Arrival | None:
        mine = STOP_FLAG.get() or threading.Event()
        if older := self.newest.get(session):
            older.set()
        self.newest[session] = mine
        try:
            arrival = bring(self, session, *args)
        except X2VLMError:
            if self.newest.get(session) is mine:
                raise
            return None
        if self.newest.get(session) is not mine:
            return None
        if arrival is not None:
            self.runner.jobs.cancel(session)
        return arrival

    return alone


class Uploads:
    """What brings media onto the stage.

    Args:
        painted: whether the page begins with the first example's results.

    Attributes:
        newest: the stop flag of each session's newest arrival, while that is under way.
    """

    def __init__(
        self,
        runner: Runner,
        stored: dict[str, Example],
        tabs: Sequence[Tab],
        painted: bool = False,
    ):
        self.runner, self.stored, self.tabs, self.painted = runner, stored, tabs, painted
        self.newest: WeakValueDictionary[str, threading.Event] = WeakValueDictionary()

    @newest
    def upload(self, session: str, path: str | None, model: str) -> Arrival:
        """An uploaded file; the tabs offer what a caption of it says."""
        if path is None:
            return Arrival(None, model)
        origin = f"media={Path(path).parent.name}"
        state = self.state(session, MediaRef(path), model, origin)
        if model == scenes.WORLD_MODEL and any(OUTSIDE in note for note in state.preview.notes):
            model = self.runner.models.default  # a photo is for the model of photos
            state = self.state(session, MediaRef(path), model, origin)
        return Arrival(self.described(session, state, model), model)

    @newest
    def clear(self, session: str, model: str) -> Arrival:
        """An emptied uploader empties the stage."""
        return Arrival(None, model)

    @newest
    def use_frames(
        self, session: str, state: ViewState | None, model: str, count: float, numbers: str
    ) -> Arrival:
        """Other frames of the same video."""
        before = loaded(state)
        indices = inputs.frame_numbers(numbers)
        count = inputs.number(count, "The number of frames", 1, limits.FRAMES)
        media = dataclasses.replace(before.media, num_frames=count, indices=indices)
        after = self.state(session, media, model, before.origin)
        preview = dataclasses.replace(after.preview, name=before.preview.name)
        return Arrival(dataclasses.replace(after, preview=preview, texts=before.texts), model)

    @newest
    def new_scene(self, session: str, kind: str, model: str) -> Arrival:
        """A scene that nobody has seen, asked about in every tab, with its truth."""
        return self.scene(session, kind, random.randrange(scenes.SCENES), model)

    @newest
    def example(self, session: str, name: str, model: str) -> Arrival:
        """A bundled example, under the model that knows it where this server offers that one."""
        return self.shown_example(session, self.stored[name], self.known(model, name))

    @newest
    def arrive(self, session: str, wish: dict[str, str], model: str) -> Arrival | None:
        """What the page's address asks for; else the first example's results, where the model's
        weights were not known before it was loaded."""
        model = wish["model"] if wish.get("model") in self.runner.models.names else model
        arrival = self.wished(session, wish, model)
        if arrival is None or arrival.state is None:
            return arrival
        values = linked_values(wish.get("fields", ""))
        state = dataclasses.replace(arrival.state, tab=wish.get("tab", ""))
        for tab in self.tabs:
            if tab.name in values and tab.asks:
                asked = tab.defaults | tab.suggest(state.texts) | values[tab.name]
                result = tab.timed(Asker(self.runner, session, state, model), asked)
                state = state.with_result(tab.name, result)
        return dataclasses.replace(arrival, state=state, values=values)

    def wished(self, session: str, wish: dict[str, str], model: str) -> Arrival | None:
        """The media that an address names."""
        if wish.get("example") in self.stored:
            return self.shown_example(session, self.stored[wish["example"]], model)
        number, kind = wish.get("scene", ""), wish.get("kind")
        if re.fullmatch(r"\d{1,9}", number) and kind in ("image", "video"):
            return self.scene(session, kind, int(number) % scenes.SCENES, model)
        if kept := wish.get("media"):
            state = self.state(session, MediaRef(kept_upload(kept)), model, f"media={kept}")
            return Arrival(self.described(session, state, model), model)
        first = first_image(self.stored)
        if first is None or self.painted or not first.hash:
            return None
        known = self.runner.models[model].info.hash == first.hash
        return Arrival(first.on_stage(first.hash), model) if known else None

    def known(self, model: str, name: str) -> str:
        """The model that knows an example, where it is on offer."""
        own = self.stored[name].model
        return own if own in self.runner.models.names else model

    def shown_example(self, session: str, chosen: Example, model: str) -> Arrival:
        """An example with its stored results, or fresh ones under another model."""
        media, origin = MediaRef(str(chosen.path)), f"example={chosen.name}"
        state = dataclasses.replace(self.state(session, media, model, origin), texts=chosen.texts)
        fresh = self.runner.models[model].info.hash == chosen.hash
        results = chosen.results if fresh else self.tour(session, state, model)
        return Arrival(with_results(state, results), model)

    def scene(self, session: str, kind: str, number: int, model: str) -> Arrival:
        """A sticker scene, under the model of that world where it is on offer."""
        if scenes.WORLD_MODEL in self.runner.models.names:
            model = scenes.WORLD_MODEL
        frames, truth = scenes.fresh_scene(kind, number)
        path = scenes.save_scene(kind, frames, results_folder() / f"scene-{number}")
        texts = scenes.texts_for(truth, number)
        origin = f"kind={kind}&scene={number}"
        state = self.state(session, MediaRef(str(path)), model, origin)
        state = dataclasses.replace(state, texts=texts)
        results = self.tour(session, state, model)
        return Arrival(with_results(state, results), model, truth_card(truth))

    def tour(self, session: str, state: ViewState, model: str) -> dict[str, Any]:
        return examples.tour(self.tabs, Asker(self.runner, session, state, model), state.texts)

    def state(self, session: str, media: MediaRef, model: str, origin: str) -> ViewState:
        """A file on the stage, nothing asked yet; of a video the middle frame in view."""
        preview = self.runner.preview(media, model, session)
        frame = len(preview.frames) // 2 if preview.kind == "video" else 0
        return ViewState(media, preview, origin, frame=frame)

    def described(self, session: str, state: ViewState, model: str) -> ViewState:
        """The texts that captions of the model give."""
        ask = Asker(self.runner, session, state, model)
        captions = ask.tried("caption", num_captions=CAPTIONS) or ()
        return dataclasses.replace(state, texts=texts_of(captions, ask))


def first_image(stored: dict[str, Example]) -> Example | None:
    """The example that the page is painted with."""
    return next((example for example in stored.values() if example.kind == "image"), None)


def with_results(state: ViewState, results: dict[str, Any]) -> ViewState:
    """Every tab's result; of a video, the frame that was searched."""
    for name, result in results.items():
        state = state.with_result(name, result)
    return state


def kept_upload(folder: str) -> str:
    """The file in a folder of the upload folder that a link names.

    Raises:
        MediaError: it is not kept any more (`image/empty`).
    """
    place = upload_folder() / folder
    files = (
        sorted(place.iterdir())
        if re.fullmatch(r"[0-9a-f]{40,64}", folder) and (place.is_dir())
        else []
    )
    if not files:
        raise MediaError(
            "The image of this link is no longer on the server. Upload it again.", "image/empty"
        )
    return str(files[0])


def linked_values(text: str) -> dict[str, dict[str, Any]]:
    """Name of a tab -> values of its fields, as a link holds them; nothing of a broken one."""
    try:
        values = json.loads(text[:LINK_BYTES]) if text else {}
        return {
            str(tab): {
                str(name): value
                for name, value in fields.items()
                if isinstance(value, str | int | float)
            }
            for tab, fields in values.items()
        }
    except (ValueError, AttributeError, RecursionError):
        return {}


def truth_card(truth: dict[str, Any]) -> str:
    """The generator's own annotation of a scene."""
    rows = [[say("caption"), escape(text)] for text in truth["captions"][:2]]
    rows += [
        [say("region_phrase"), escape(region["text"])] for region in truth.get("regions", [])[:6]
    ]
    rows += [[say("not_there"), escape(text)] for text in truth.get("absent", [])[:3]]
    return html.table([], rows, "truth")
