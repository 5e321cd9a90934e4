"""Runs a Predictor's method on an uploaded file: decode, encode once, wait for a worker, call.

Nothing of a visitor is kept here but encoded scenes, which are immutable and few.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from PIL import Image

from x2vlm.errors import MediaError, X2VLMError
from x2vlm.media import OpenedImage, OpenedVideo, open_media, shown_name
from x2vlm.serving import Concurrency, plan_concurrency, set_threads

from .. import inputs, limits
from ..state import MediaRef, Preview
from .events import report_progress
from .log import log_failure
from .models import Models, lent_gpu, zero_gpu
from .queue import Busy, JobQueue

if TYPE_CHECKING:
    from x2vlm import Predictor, Scene

Opened = OpenedImage | OpenedVideo


class Runner:
    """Runs a Predictor's methods on uploaded files: decode, wait, encode once, call.

    Args:
        models: on offer.
        workers, threads: model calls at a time and torch threads of each; by default what
            `plan_concurrency` says of the default model.
    """

    def __init__(self, models: Models, workers: int | None = None, threads: int | None = None):
        self.models = models
        self.jobs = JobQueue(workers or 1)
        self._chosen = {"workers": workers, "threads": threads}
        self._concurrency: Concurrency | None = None
        self._scenes: OrderedDict[tuple[int, MediaRef], Scene] = OrderedDict()
        self._lock = threading.Lock()
        self._elsewhere = zero_gpu()
        lent = self._elsewhere
        self._work = lent_gpu(returning_errors(self._call)) if lent else self._call
        self._work_each = lent_gpu(returning_errors(self._call_each)) if lent else self._call_each
        self._check = lent_gpu(self._health_check) if self._elsewhere else self._health_check
        self._checked, self._failure = -math.inf, ""

    def preview(self, media: MediaRef, model: str | None, session: str) -> Preview:
        """What the page shows of a file."""
        return self.run("preview", media, model, session, shown_name(media.path))

    def run(
        self,
        task: str,
        media: MediaRef,
        model: str | None,
        session: str,
        *args: Any,
        **options: Any,
    ) -> Any:
        """`predictor.<task>(scene, *args, **options)`, or one of `OWN_TASKS`.

        Raises:
            X2VLMError: media, text or option cannot be used, the model lacks the task, stopped, or
                no place.
        """
        with self.jobs.job(session) as flag:
            opened = self._opened(self.models[model], media, flag)
            self._plan()
            with self.jobs.worker(flag):
                cancel = None if self._elsewhere else flag
                found = self._work(task, media, model, opened, args, options, cancel)
        if isinstance(found, X2VLMError):
            raise found
        return found

    def run_each(
        self, task: str, paths: Sequence[str], model: str | None, session: str, *args: Any
    ) -> list[tuple[Image.Image | None, Any]]:
        """`predictor.<task>(images, *args)` of many image files, in batches between which others
        have their turn.

        Returns:
            For each file a small copy of its image and the result; None and the X2VLMError of a
            file that could not be used.

        Raises:
            as `run`, but for what is wrong with a single file.
        """
        done: list[tuple[Image.Image | None, Any]] = []
        with self.jobs.job(session) as flag:
            predictor = self.models[model]
            for start in range(0, len(paths), limits.BATCH):
                report_progress(start / len(paths), STAGES.get(task, "thinking"))
                media = [MediaRef(path) for path in paths[start : start + limits.BATCH]]
                opened = [self._opened_or_error(predictor, one, flag) for one in media]
                self._plan()
                with self.jobs.worker(flag):
                    cancel = None if self._elsewhere else flag
                    found = self._work_each(task, model, opened, args, cancel)
                if isinstance(found, X2VLMError):
                    raise found
                done += found
        return done

    def _opened_or_error(
        self, predictor: Predictor, media: MediaRef, flag: Event
    ) -> Opened | MediaError:
        try:
            return self._opened(predictor, media, flag, kept=False)
        except MediaError as error:
            return error

    def _call_each(
        self,
        task: str,
        model: str | None,
        opened: Sequence[Opened | MediaError],
        args: tuple,
        cancel: Event | None,
    ) -> list[tuple[Image.Image | None, Any]]:
        if self._concurrency is not None:
            set_threads(self._concurrency.threads)
        good = [one for one in opened if not isinstance(one, MediaError)]
        found = iter(getattr(self.models[model], task)(good, *args, cancel=cancel) if good else ())
        return [
            (None, one)
            if isinstance(one, MediaError)
            else (shrunk(one.pixels, limits.TILE_SIDE), next(found))
            for one in opened
        ]

    def _plan(self) -> None:
        """Choose workers and threads once the default model, which they depend on, is loaded."""
        if self._concurrency is None and self.models.ready:
            info = self.models[None].info
            self._concurrency = plan_concurrency(info.parameters, info.device, **self._chosen)
            self.jobs.workers = self._concurrency.workers

    def trouble(self) -> str:
        """Why the server is not ready; "" if it is: its default model passed a health check within
        `HEALTH_CHECK_SECONDS`, or all workers are busy."""
        if self.jobs.draining:
            return "The server is restarting."
        if not self.models.ready:
            return "The model is not loaded yet."
        if self.jobs.stuck:
            return f"A call has been running for over {limits.MODEL_SECONDS} s."
        if time.monotonic() - self._checked > limits.HEALTH_CHECK_SECONDS:
            with contextlib.suppress(Busy), self.jobs.worker(Event(), seconds=0):
                self._failure = self._check()
                self._checked = time.monotonic()
        return self._failure

    def _health_check(self) -> str:
        """What is wrong with the default model, asked about a single pixel; "" if nothing."""
        try:
            predictor = self.models[None]
            scene = predictor.encode(Image.new("RGB", (1, 1)))
            if "match" not in predictor.missing:
                predictor.match(scene, ["a pixel"])
        except Exception:
            log_failure("the health check")
            return "The model did not answer a health check."
        return ""

    def _call(
        self,
        task: str,
        media: MediaRef,
        model: str | None,
        opened: Opened | None,
        args: tuple,
        options: dict,
        cancel: Event | None,
    ) -> Any:
        predictor = self.models[model]
        if self._concurrency is not None:
            set_threads(self._concurrency.threads)
        scene = self._scene(predictor, media, opened, cancel)
        if task == "preview":
            return preview(scene, *args)
        report_progress(0.6, STAGES.get(task, "thinking"))
        if task in OWN_TASKS:
            return OWN_TASKS[task](predictor, scene, *args, cancel=cancel, **options)
        return getattr(predictor, task)(scene, *args, cancel=cancel, **options)

    def forget(self) -> None:
        """Drop the scenes of files that have been deleted, so that they are kept no longer."""
        with self._lock:
            for key in [key for key in self._scenes if not Path(key[1].path).is_file()]:
                del self._scenes[key]

    def _kept(self, predictor: Predictor, media: MediaRef) -> Scene | None:
        with self._lock:
            key = (id(predictor), media)
            if key in self._scenes:
                self._scenes.move_to_end(key)
            return self._scenes.get(key)

    def _opened(
        self, predictor: Predictor, media: MediaRef, cancel: Event | None, kept: bool = True
    ) -> Opened | None:
        """The decoded file, or None where its scene is `kept`. Decoding takes no worker."""
        if kept and self._kept(predictor, media) is not None:
            return None
        if not Path(media.path).is_file():
            raise MediaError("The file is no longer on the server. Upload it again.", "image/empty")
        report_progress(0.1, "reading")
        frames = media.num_frames or predictor.info.num_frames
        return open_media(media.path, frames, indices=media.indices, cancel=cancel)

    def _scene(
        self, predictor: Predictor, media: MediaRef, opened: Opened | None, cancel: Event | None
    ) -> Scene:
        scene = self._kept(predictor, media)
        if scene is None:
            # The scene may have been dropped since `run` looked for it.
            opened = opened or self._opened(predictor, media, cancel)
            report_progress(0.3, "looking")
            scene = predictor.encode(
                opened if media.frame is None else opened.frames[media.frame], cancel=cancel
            )
            with self._lock:
                self._scenes[id(predictor), media] = scene
                while len(self._scenes) > limits.SCENES:
                    self._scenes.popitem(last=False)
        return scene


def returning_errors(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call in a process of ZeroGPU, of whose exceptions only the class's name comes back."""

    @functools.wraps(call)
    def safe(*args: Any) -> Any:
        try:
            return call(*args)
        except X2VLMError as error:
            return error

    return safe


def preview(scene: Scene, name: str) -> Preview:
    """What the page shows of an encoded image or video."""
    video = scene.kind == "video"
    images = scene.frames if video else (scene.image,)
    side = limits.FRAME_SIDE if video else limits.DISPLAY_SIDE
    indices, times = (tuple(scene.indices), tuple(scene.times)) if video else ((0,), (0.0,))
    shown = tuple(shrunk(image, side) for image in images)
    return Preview(scene.kind, name, tuple(scene.size), shown, indices, times, tuple(scene.notes))


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """A copy with no side longer than `side` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def _with_notes(
    predictor: Predictor, scene: Scene, task: str, *args: Any, **options: Any
) -> tuple[Any, tuple[str, ...]]:
    """A task's result, and what the user should know about the scene."""
    if task in OWN_TASKS:
        return OWN_TASKS[task](predictor, scene, *args, **options), scene.notes
    return getattr(predictor, task)(scene, *args, **options), scene.notes


def _answer_region(
    predictor: Predictor,
    scene: Scene,
    box: tuple[float, ...],
    question: str,
    cancel: Event | None,
    **options: Any,
) -> Any:
    """The question about the part of the image inside the box."""
    inside = inputs.needed_region(box, scene.size)
    cut = scene.image.crop(tuple(round(side) for side in inside))
    return predictor.answer(cut, question, cancel=cancel, **options)


def _check_text(
    predictor: Predictor, scene: Scene, text: str, cancel: Event | None, **options: Any
) -> Any:
    """The faithfulness of a text's map."""
    found = predictor.explain(scene, text, cancel=cancel)
    return predictor.deletion_check(scene, found, cancel=cancel, **options)


def _ground_frames(
    predictor: Predictor, scene: Scene, phrases: list[str], cancel: Event | None
) -> list:
    """Every phrase in every seen frame."""
    return [
        predictor.ground(scene, phrases, frame=k, explain=False, cancel=cancel)
        for k in range(len(scene.frames))
    ]


STAGES = {"caption": "writing", "describe_region": "writing", "explain": "explaining"}
OWN_TASKS = {
    "answer_region": _answer_region,
    "check_text": _check_text,
    "ground_frames": _ground_frames,
    "with_notes": _with_notes,
}
