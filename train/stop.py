"""SIGTERM and SIGUSR1 mean: save and end well. Standard library only, so that the handler stands
before torch is imported."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequested(Exception):
    """Raised by the handler inside `interruptible`, where nothing is lost by leaving at once."""


class StopSignal:
    """Whether the run was asked to stop. A second signal changes nothing, so it cannot cut a save
    short."""

    def __init__(self):
        self.requested = False
        self._may_raise = False

    def install(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number, frame):
        self.requested = True
        if self._may_raise:
            self._may_raise = False
            raise StopRequested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Leaves its block at once when the signal comes (or has come already): for work that can
        be done again later."""
        try:
            self._may_raise = True
            if self.requested:
                raise StopRequested
            yield
        except StopRequested:
            pass
        finally:
            self._may_raise = False
