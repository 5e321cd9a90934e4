"""Between the handlers and the model: which model, one call at a time, stop flags, and what is kept of a picture.

Nothing of a visitor is kept here but encoded scenes, which are immutable and few.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from x2vlm.errors import Cancelled, CheckpointError, MediaError, X2VLMError
from x2vlm.media import open_media, shown_name

from . import limits

try:
    import spaces
except ImportError:
    spaces = None

log = logging.getLogger(__name__)
ZERO_GPU = spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


@dataclass(frozen=True)
class Media:
    """An uploaded file and, for a clip, which frames of it the model sees."""

    path: str
    num_frames: int | None = None
    indices: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What the page shows of an encoded picture or clip. `size` is that of the upright original, all boxes are in it."""

    kind: str
    name: str
    size: tuple[int, int]
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    notes: tuple[str, ...]


class Busy(X2VLMError):
    """No place for another call now; codes `busy/*`."""


class Gate:
    """At most `workers` model calls at a time, whoever asks, with a stop flag per visitor and a drain for the end."""

    def __init__(self, workers: int = limits.WORKERS):
        self.workers = workers
        self._slots = threading.BoundedSemaphore(workers)
        self._flags: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self.draining = False

    @contextlib.contextmanager
    def job(self, visitor: str) -> Iterator[threading.Event]:
        """Hold one slot; yields the flag that `cancel` sets."""
        if self.draining:
            raise Busy("The server is restarting and nothing was started. Try again in a minute.", "busy/draining")
        flag = threading.Event()
        with self._lock:
            self._flags[visitor].add(flag)
        try:
            if not self._slots.acquire(timeout=limits.SLOT_WAIT_SECONDS):
                raise Busy(f"All workers were busy for {limits.SLOT_WAIT_SECONDS} s. Try again in a minute.", "busy/queue")
            try:
                if flag.is_set():
                    raise Cancelled("Stopped before it began.", "job/cancelled")
                yield flag
            finally:
                self._slots.release()
        finally:
            with self._lock:
                self._flags[visitor].discard(flag)
                if not self._flags[visitor]:
                    del self._flags[visitor]

    def cancel(self, visitor: str) -> None:
        """Stop what this visitor has at work or waiting."""
        with self._lock:
            for flag in self._flags.get(visitor, ()):
                flag.set()

    def drain(self, seconds: float = limits.DRAIN_SECONDS) -> bool:
        """Take no new call and wait for those at work; False when time ran out."""
        self.draining = True
        return all(self._slots.acquire(timeout=seconds) for _ in range(self.workers))


class Models:
    """The models that visitors may choose, loaded on first use, at most two at a time.

    Args:
        load: name or path -> Predictor.
        names: the choices; the first is the default. On a public host nothing else can be asked for.
        open_choice: a visitor may type any name or path (only on one's own machine).
    """

    def __init__(self, load: Callable[[str], Any], names: tuple[str, ...] = ("mini",), *, open_choice: bool = False):
        self.load, self.names, self.open_choice = load, names, open_choice
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def default(self) -> str:
        return self.names[0]

    def __getitem__(self, name: str | None) -> Any:
        name = name or self.default
        if name not in self.names and not self.open_choice:
            raise CheckpointError("This server offers only the models in its list. Choose one of them.", "ckpt/source")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self.load(name)
                if len(self._loaded) > 2:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def warm(self) -> None:
        """Start loading the default model in the background."""
        threading.Thread(target=self._warm, daemon=True).start()

    def _warm(self) -> None:
        try:
            self[self.default]
        except Exception:
            log.exception("the default model did not load")


class Studio:
    """Runs a Predictor's method on an uploaded file: admission, decoding, encoding once, calling."""

    def __init__(self, models: Models, workers: int = limits.WORKERS):
        self.models = models
        self.gate = Gate(workers)
        self._scenes: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._run = spaces.GPU(self._work) if ZERO_GPU else self._work

    def look(self, media: Media, model: str | None, visitor: str) -> Seen:
        """What the page shows of a file."""
        return self.run("look", media, model, visitor, shown_name(media.path))

    def run(self, task: str, media: Media, model: str | None, visitor: str, *args: Any, **options: Any) -> Any:
        """`predictor.<task>(scene, *args, **options)`, or `look` or one of `OWN_TASKS`.

        Raises:
            X2VLMError: media, text or option cannot be used, the model lacks the task, stopped, or no place.
        """
        with self.gate.job(visitor) as flag:
            return self._run(task, media, model, args, options, None if ZERO_GPU else flag)

    def _work(self, task: str, media: Media, model: str | None, args: tuple, options: dict, cancel: Any) -> Any:
        predictor = self.models[model]
        scene = self._scene(predictor, media, cancel)
        if task == "look":
            return look(scene, *args)
        if task in OWN_TASKS:
            return OWN_TASKS[task](predictor, scene, *args, cancel=cancel, **options)
        return getattr(predictor, task)(scene, *args, cancel=cancel, **options)

    def _scene(self, predictor: Any, media: Media, cancel: Any) -> Any:
        key = (id(predictor), media)
        with self._lock:
            if key in self._scenes:
                self._scenes.move_to_end(key)
                return self._scenes[key]
        if not Path(media.path).is_file():
            raise MediaError("The file is no longer on the server. Upload it again.", "image/empty")
        frames = media.num_frames or predictor.info.num_frames
        opened = open_media(media.path, frames, indices=media.indices, limits=limits.MEDIA, cancel=cancel)
        scene = predictor.encode(opened, cancel=cancel)
        with self._lock:
            self._scenes[key] = scene
            while len(self._scenes) > limits.SCENES:
                self._scenes.popitem(last=False)
        return scene


def look(scene: Any, name: str) -> Seen:
    """What the page shows of an encoded picture or clip."""
    clip = scene.kind == "video"
    pictures = scene.frames if clip else (scene.image,)
    side = limits.FRAME_SIDE if clip else limits.DISPLAY_SIDE
    indices, times = (tuple(scene.indices), tuple(scene.times)) if clip else ((0,), (0.0,))
    shown = tuple(shrunk(picture, side) for picture in pictures)
    return Seen(scene.kind, name, tuple(scene.size), shown, indices, times, tuple(scene.notes))


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """A copy with no side longer than `side` pixels."""
    copy = picture.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def _answer_region(predictor: Any, scene: Any, box: tuple[float, ...], question: str, cancel: Any) -> Any:
    """The question put to the cut-out of the box."""
    return predictor.answer(scene.image.crop(tuple(round(side) for side in box)), question, cancel=cancel)


def _ground_frames(predictor: Any, scene: Any, phrases: list[str], cancel: Any) -> list:
    """Every phrase in every seen frame."""
    return [predictor.ground(scene, phrases, frame=k, explain=False, cancel=cancel) for k in range(len(scene.frames))]


OWN_TASKS = {"answer_region": _answer_region, "ground_frames": _ground_frames}


def friendly(handler: Callable) -> Callable:
    """Refusals become our own sentence; anything else is logged and told without its text."""

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except X2VLMError as error:
            raise gr.Error(gr_text(str(error)), print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("%s failed", handler.__name__)
            message = "Something broke on the server and was logged; nothing of yours is lost. Try again. [job/crashed]"
            raise gr.Error(message, print_exception=False) from None

    return guarded


def gr_text(text: str) -> str:
    """Escaped for a toast, which shows HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
