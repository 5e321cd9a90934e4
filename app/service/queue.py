"""Jobs that wait for the model: a bounded number at work, a stop flag each, a drain for the end."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar

from x2vlm.errors import Cancelled, X2VLMError

from .. import limits

POLL_SECONDS = 0.1
TOO_LONG = (
    "This took over {} s and was stopped. Ask for less at a time: fewer phrases, frames or beams."
)
STOP_FLAG: ContextVar[threading.Event | None] = ContextVar("stop_flag", default=None)
"""The stop flag of the present event."""


class Busy(X2VLMError):
    """No place for another call, or for a long one; codes `busy/*` and `job/timeout`."""


class JobQueue:
    """At most `workers` model calls at a time, a stop flag per job, and a drain for the end."""

    def __init__(self, workers: int = 1):
        self.workers = workers
        self.draining = False
        self.busy = 0  # events that have begun
        self._at_work: list[float] = []  # when the calls at work began
        self._free = threading.Condition()
        self._flags: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._changed = 0.0

    @contextlib.contextmanager
    def event(self, waited: float = 0.0) -> Iterator[None]:
        """Count an event as running; rejected while draining or after more than `WAIT_SECONDS`.

        Args:
            waited: seconds since it was asked for.
        """
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
    def job(self, session: str) -> Iterator[threading.Event]:
        """A job of a session; yields the flag that `cancel` sets."""
        flag = STOP_FLAG.get() or threading.Event()
        with self._lock:
            self._flags[session].add(flag)
        try:
            yield flag
        finally:
            with self._lock:
                self._flags[session].discard(flag)
                if not self._flags[session]:
                    del self._flags[session]

    @property
    def stuck(self) -> bool:
        """A call has been at work for longer than any should."""
        return time.monotonic() - min(self._at_work, default=math.inf) > limits.MODEL_SECONDS

    @contextlib.contextmanager
    def worker(self, flag: threading.Event, seconds: float | None = None) -> Iterator[None]:
        """Hold one of the workers, and set the flag when the call takes too long.

        Args:
            flag: of the job; stops it while it waits and while it is at work.
            seconds: to wait, `WAIT_SECONDS` by default.

        Raises:
            Busy: no worker came free in time (`busy/queue`), or the call was stopped for its length
                (`job/timeout`).
            Cancelled: the visitor stopped it.
        """
        began = self._take(flag, limits.WAIT_SECONDS if seconds is None else seconds)
        alarm = threading.Timer(limits.MODEL_SECONDS, flag.set)
        alarm.start()
        try:
            self._check(flag)
            yield
        except Cancelled:
            if time.monotonic() - began < limits.MODEL_SECONDS:
                raise
            raise Busy(TOO_LONG.format(limits.MODEL_SECONDS), "job/timeout") from None
        finally:
            alarm.cancel()
            with self._free:
                self._at_work.remove(began)
                self._free.notify()

    def _take(self, flag: threading.Event, seconds: float) -> float:
        """Wait for a free worker; returns when its call began."""
        deadline = time.monotonic() + seconds
        with self._free:
            while len(self._at_work) >= self.workers:
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"All workers were busy for {limits.WAIT_SECONDS} s. Try again in a "
                        f"minute.",
                        "busy/queue",
                    )
                self._free.wait(POLL_SECONDS)
                self._check(flag)
            began = time.monotonic()
            self._at_work.append(began)
        return began

    @staticmethod
    def _check(flag: threading.Event) -> None:
        if flag.is_set():
            raise Cancelled("Stopped before it began.", "job/cancelled")

    def cancel(self, session: str) -> None:
        """Stop the jobs of this session, running or waiting."""
        with self._lock:
            for flag in self._flags.get(session, ()):
                flag.set()

    def drain(self, seconds: float = limits.DRAIN_SECONDS, quiet: float = 1.0) -> bool:
        """Stop accepting events; wait until the running ones have ended and none was rejected for
        `quiet` seconds.

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
