"""Between the handlers and the model: which model, one call at a time, stop flags, and what is kept
of a picture.

Nothing of a visitor is kept here but encoded scenes, which are immutable and few.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from PIL import Image

from x2vlm.errors import Cancelled, CheckpointError, MediaError, X2VLMError
from x2vlm.media import open_media, shown_name

from . import limits
from .i18n import TEXT, language
from .refusals import told

try:
    import spaces
except ImportError:
    spaces = None

log = logging.getLogger(__name__)
ZERO_GPU = spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


@dataclass(frozen=True)
class Media:
    """An uploaded file and, for a clip, which frames of it the model sees; with `frame` only that
    one of them, as a picture."""

    path: str
    num_frames: int | None = None
    indices: tuple[int, ...] | None = None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What the page shows of an encoded picture or clip. `size` is that of the upright original,
    all boxes are in it."""

    kind: str
    name: str
    size: tuple[int, int]
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    notes: tuple[str, ...]


PROGRESS = gr.Progress()


def tell(share: float, stage: str) -> None:
    """Show on the page what is being done for the present event; nothing where there is none."""
    PROGRESS(share, desc=TEXT[stage][language()])


class Busy(X2VLMError):
    """No place for another call, or for a long one; codes `busy/*` and `job/timeout`."""


POLL_SECONDS = 0.1
TOO_LONG = (
    "This took over {} s and was stopped. Ask for less at a time: fewer phrases, frames or beams."
)
STOPPED: ContextVar[threading.Event | None] = ContextVar("stopped", default=None)
"""The stop flag of the present event."""


class Gate:
    """At most `workers` model calls at a time, whoever asks, with a stop flag per visitor and a
    drain for the end."""

    def __init__(self, workers: int = limits.WORKERS):
        self.workers = workers
        self.draining = False
        self.busy = 0  # events that have begun
        self._slots = threading.BoundedSemaphore(workers)
        self._at_work: set[float] = set()  # when the calls at work began
        self._flags: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._changed = 0.0

    @contextlib.contextmanager
    def event(self, waited: float = 0.0) -> Iterator[None]:
        """One event from its beginning to its end, which a drain waits for; `waited` is in
        seconds."""
        with self._lock:
            self._changed = time.monotonic()
            if self.draining:
                raise Busy(
                    "The server is restarting and nothing was started. Try again in a minute.",
                    "busy/draining",
                )
            if waited > limits.WAIT_SECONDS:
                raise Busy(
                    f"This waited over {limits.WAIT_SECONDS} s and was not started. Try again "
                    f"later.",
                    "busy/queue",
                )
            self.busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._changed = time.monotonic()
                self.busy -= 1

    @contextlib.contextmanager
    def job(self, visitor: str) -> Iterator[threading.Event]:
        """Something done for a visitor; yields the flag that `cancel` sets."""
        flag = STOPPED.get() or threading.Event()
        with self._lock:
            self._flags[visitor].add(flag)
        try:
            yield flag
        finally:
            with self._lock:
                self._flags[visitor].discard(flag)
                if not self._flags[visitor]:
                    del self._flags[visitor]

    @property
    def hangs(self) -> bool:
        """A call has been at work for longer than any should."""
        return time.monotonic() - min(self._at_work, default=math.inf) > limits.MODEL_SECONDS

    @contextlib.contextmanager
    def slot(self, flag: threading.Event, seconds: float | None = None) -> Iterator[None]:
        """Hold one of the workers and ring the flag when that takes too long.

        Args:
            flag: of the job; stops it while it waits and while it is at work.
            seconds: to wait, `WAIT_SECONDS` by default.

        Raises:
            Busy: no worker came free in time (`busy/queue`), or the call was stopped for its length
                (`job/timeout`).
            Cancelled: the visitor stopped it.
        """
        deadline = time.monotonic() + (limits.WAIT_SECONDS if seconds is None else seconds)
        while not self._slots.acquire(timeout=POLL_SECONDS):
            if time.monotonic() >= deadline:
                raise Busy(
                    f"All workers were busy for {limits.WAIT_SECONDS} s. Try again in a minute.",
                    "busy/queue",
                )
            self._check(flag)
        began = time.monotonic()
        self._at_work.add(began)
        bell = threading.Timer(limits.MODEL_SECONDS, flag.set)
        bell.start()
        try:
            self._check(flag)
            yield
        except Cancelled:
            if time.monotonic() - began < limits.MODEL_SECONDS:
                raise
            raise Busy(TOO_LONG.format(limits.MODEL_SECONDS), "job/timeout") from None
        finally:
            bell.cancel()
            self._at_work.discard(began)
            self._slots.release()

    @staticmethod
    def _check(flag: threading.Event) -> None:
        if flag.is_set():
            raise Cancelled("Stopped before it began.", "job/cancelled")

    def cancel(self, visitor: str) -> None:
        """Stop what this visitor has at work or waiting."""
        with self._lock:
            for flag in self._flags.get(visitor, ()):
                flag.set()

    def drain(self, seconds: float = limits.DRAIN_SECONDS, quiet: float = 1.0) -> bool:
        """Begin no event any more, and wait until those at work have ended and nobody came to be
        told so for `quiet` seconds.

        Returns:
            False when time ran out.
        """
        self.draining = True
        self._changed = time.monotonic()
        deadline = self._changed + seconds
        while self.busy or time.monotonic() - self._changed < quiet:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


class Models:
    """The models that visitors may choose, loaded on first use; the default stays, with one other
    at a time.

    On ZeroGPU there is the default alone, loaded at once: `spaces` lends CUDA to no thread but the
    main one.

    Args:
        load: name or path -> Predictor.
        names: the choices; the first is the default. On a public host nothing else can be asked
            for.
        open_choice: a visitor may type any name or path (only on one's own machine).
    """

    def __init__(
        self,
        load: Callable[[str], Any],
        names: tuple[str, ...] = ("mini",),
        *,
        open_choice: bool = False,
    ):
        self.load, self.names, self.open_choice = load, names, open_choice
        self._loaded: dict[str, Any] = {}
        self._loading: dict[str, threading.Lock] = {}
        if ZERO_GPU:
            self.names, self.open_choice = names[:1], False
            self[self.default]

    @property
    def default(self) -> str:
        return self.names[0]

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded."""
        return self.default in self._loaded

    def __getitem__(self, name: str | None) -> Any:
        name = name or self.default
        if name not in self.names and not self.open_choice:
            raise CheckpointError(
                "This server offers only the models in its list. Choose one of them.", "ckpt/source"
            )
        predictor = self._loaded.get(
            name
        )  # before any lock: who asks a loaded model waits for nobody's download
        if predictor is None:
            with self._loading.setdefault(name, threading.Lock()):
                predictor = self._loaded.get(name)
                if predictor is None:
                    predictor = self._loaded[name] = self.load(name)
                    for other in set(self._loaded) - {self.default, name}:
                        self._loaded.pop(other, None)
        return predictor

    def warm(self) -> None:
        """Start loading the default model in the background."""
        threading.Thread(target=self._warm, daemon=True).start()

    def _warm(self) -> None:
        try:
            self[self.default]
        except Exception:
            log.exception("the default model did not load")


class Studio:
    """Runs a Predictor's method on an uploaded file: admission, decoding, encoding once,
    calling."""

    def __init__(self, models: Models, workers: int = limits.WORKERS):
        self.models = models
        self.gate = Gate(workers)
        self._scenes: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._run = spaces.GPU(self._lent) if ZERO_GPU else self._work
        self._control = spaces.GPU(self._ask_control) if ZERO_GPU else self._ask_control
        self._controlled, self._failure = -math.inf, ""

    def look(self, media: Media, model: str | None, visitor: str) -> Seen:
        """What the page shows of a file."""
        return self.run("look", media, model, visitor, shown_name(media.path))

    def run(
        self, task: str, media: Media, model: str | None, visitor: str, *args: Any, **options: Any
    ) -> Any:
        """`predictor.<task>(scene, *args, **options)`, or `look` or one of `OWN_TASKS`.

        Raises:
            X2VLMError: media, text or option cannot be used, the model lacks the task, stopped, or
                no place.
        """
        with self.gate.job(visitor) as flag:
            opened = self._opened(self.models[model], media, flag)
            with self.gate.slot(flag):
                found = self._run(
                    task, media, model, opened, args, options, None if ZERO_GPU else flag
                )
        if isinstance(found, X2VLMError):
            raise found
        return found

    def trouble(self) -> str:
        """Why the server is not ready; "" if it is: its default model answered a control of late,
        or is answering someone."""
        if self.gate.draining:
            return "The server is restarting."
        if not self.models.ready:
            return "The model is not loaded yet."
        if self.gate.hangs:
            return f"A call has been at work for over {limits.MODEL_SECONDS} s."
        if time.monotonic() - self._controlled > limits.CONTROL_SECONDS:
            with contextlib.suppress(Busy), self.gate.slot(threading.Event(), seconds=0):
                self._failure = self._control()
                self._controlled = time.monotonic()
        return self._failure

    def _ask_control(self) -> str:
        """Why the default model does not answer about a picture of one pixel; "" if it does."""
        try:
            predictor = self.models[None]
            scene = predictor.encode(Image.new("RGB", (1, 1)))
            if "match" not in predictor.missing:
                predictor.match(scene, ["a pixel"])
        except Exception:
            log.exception("the control failed")
            return "The model did not answer a control."
        return ""

    def _lent(self, *call: Any) -> Any:
        """`_work` in a process of ZeroGPU, which returns refusals: of what is raised there only the
        name comes back."""
        try:
            return self._work(*call)
        except X2VLMError as refusal:
            return refusal

    def _work(
        self,
        task: str,
        media: Media,
        model: str | None,
        opened: Any,
        args: tuple,
        options: dict,
        cancel: Any,
    ) -> Any:
        predictor = self.models[model]
        scene = self._scene(predictor, media, opened, cancel)
        if task == "look":
            return look(scene, *args)
        tell(0.6, STAGES.get(task, "thinking"))
        if task in OWN_TASKS:
            return OWN_TASKS[task](predictor, scene, *args, cancel=cancel, **options)
        return getattr(predictor, task)(scene, *args, cancel=cancel, **options)

    def forget(self) -> None:
        """Drop the scenes of files that have been deleted, so that they are kept no longer."""
        with self._lock:
            for key in [key for key in self._scenes if not Path(key[1].path).is_file()]:
                del self._scenes[key]

    def _kept(self, predictor: Any, media: Media) -> Any:
        with self._lock:
            key = (id(predictor), media)
            if key in self._scenes:
                self._scenes.move_to_end(key)
            return self._scenes.get(key)

    def _opened(self, predictor: Any, media: Media, cancel: Any) -> Any:
        """The decoded file, or None where its scene is kept. Nobody waits for the model
        meanwhile."""
        if self._kept(predictor, media) is not None:
            return None
        if not Path(media.path).is_file():
            raise MediaError("The file is no longer on the server. Upload it again.", "image/empty")
        tell(0.1, "reading")
        frames = media.num_frames or predictor.info.num_frames
        return open_media(
            media.path, frames, indices=media.indices, limits=limits.MEDIA, cancel=cancel
        )

    def _scene(self, predictor: Any, media: Media, opened: Any, cancel: Any) -> Any:
        scene = self._kept(predictor, media)
        if scene is None:
            opened = opened or self._opened(
                predictor, media, cancel
            )  # the scene may have been dropped since it was looked up
            tell(0.3, "looking")
            scene = predictor.encode(
                opened if media.frame is None else opened.frames[media.frame], cancel=cancel
            )
            with self._lock:
                self._scenes[id(predictor), media] = scene
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


def _answer_region(
    predictor: Any, scene: Any, box: tuple[float, ...], question: str, cancel: Any
) -> Any:
    """The question put to the cut-out of the box."""
    return predictor.answer(
        scene.image.crop(tuple(round(side) for side in box)), question, cancel=cancel
    )


def _ground_frames(predictor: Any, scene: Any, phrases: list[str], cancel: Any) -> list:
    """Every phrase in every seen frame."""
    return [
        predictor.ground(scene, phrases, frame=k, explain=False, cancel=cancel)
        for k in range(len(scene.frames))
    ]


CRASHED = X2VLMError(
    "Something broke on the server and was logged; nothing of yours is lost. Try again.",
    "job/crashed",
)
STAGES = {"caption": "writing", "describe_region": "writing", "explain": "explaining"}
OWN_TASKS = {"answer_region": _answer_region, "ground_frames": _ground_frames}


def served(gate: Gate, handler: Callable) -> Callable:
    """A handler as an event of the server: counted, not begun when it waited too long, stopped when
    it is cancelled."""

    @friendly
    @functools.wraps(handler)
    def begun(*args: Any, **kwargs: Any) -> Any:
        with gate.event(waited()):
            return handler(*args, **kwargs)

    @functools.wraps(handler)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        flag = threading.Event()
        STOPPED.set(flag)
        try:
            return await asyncio.to_thread(begun, *args, **kwargs)
        except asyncio.CancelledError:  # Gradio lets go of the event, but cannot end its thread
            flag.set()
            raise

    return guarded


def waited() -> float:
    """Seconds since the present event was asked for, by the doorman's watch; 0 where it saw
    none."""
    request = LocalContext.request.get(None)
    asked = getattr(request.state, "asked", None) if request is not None else None
    return 0.0 if asked is None else time.monotonic() - asked


def friendly(handler: Callable) -> Callable:
    """Refusals become our own sentence; anything else is logged and told without its text."""

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except X2VLMError as error:
            raise gr.Error(escape(told(error), quote=False), print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise gr.Error(told(CRASHED), print_exception=False) from None

    return guarded
