"""The models that visitors may choose, and where they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from x2vlm.errors import CheckpointError
from x2vlm.hub import BUNDLED

from .log import log_failure

if TYPE_CHECKING:
    from x2vlm import Predictor

try:
    import spaces
except ImportError:
    spaces = None


def zero_gpu() -> bool:
    """Whether a GPU is lent for each call, as on ZeroGPU Spaces."""
    return spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def lent_gpu(work: Callable) -> Callable:
    """The function, run in a process to which ZeroGPU lends a GPU."""
    return spaces.GPU(work)


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
        load: Callable[[str], Predictor],
        names: tuple[str, ...] = BUNDLED,
        *,
        open_choice: bool = False,
    ):
        self.load, self.names, self.open_choice = load, names, open_choice
        self._loaded: dict[str, Predictor] = {}
        self._loading: dict[str, threading.Lock] = {}
        if zero_gpu():
            self.names, self.open_choice = names[:1], False
            self[self.default]

    @property
    def default(self) -> str:
        return self.names[0]

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded."""
        return self.default in self._loaded

    def __getitem__(self, name: str | None) -> Predictor:
        name = name or self.default
        if name not in self.names and not self.open_choice:
            raise CheckpointError(
                "This server offers only the models in its list. Choose one of them.", "ckpt/source"
            )
        # Looked up before the lock: a loaded model must not wait for another one's download.
        predictor = self._loaded.get(name)
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
            log_failure("loading the default model")
