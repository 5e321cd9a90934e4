"""The protocol of a training task: what the trainer asks of captioning, grounding, region-text
pre-training and the rest.

A task is a dataclass: its fields are the keys of its block in the YAML of a run
(`tasks.<name>.<field>`, checked before anything loads), and its methods are a pure data source, a
step that returns named losses, and an evaluator. A run mixes several tasks in one iteration; the
trainer knows none of them. To add one: a file in `train/tasks`, a line in `train.tasks.TASKS`.

    tasks:
      regions:              # any name; log keys start with it
        type: region_text   # a key of train.tasks.TASKS
        batch_size: 64
        losses: {contrastive_loss: 1, box_giou_loss: 0.5}   # the others are off: not computed

Data without state: which sample stands at which position is a function of (seed, epoch, position),
and everything random about a sample is drawn from the generator handed to `sample`, which is a
function of (seed, task, epoch, index). So a run continues at step s by starting there, the number
of processes and workers changes nothing, and there is no loader state to save.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from x2vlm.errors import ConfigError


@dataclass(kw_only=True)
class Task(ABC):
    """Base class of the tasks; subclasses add their own settings as typed dataclass fields
    (`@dataclass(kw_only=True)`).

    Construction only stores and checks settings (raise `ConfigError`); files are opened in
    `prepare`.

    Attributes:
        batch_size: samples of one optimiser step, over all processes and accumulation parts.
        losses: the weight of each loss in the sum. A loss that is not named, or has weight 0, is
            off; a task without losses only measures.
        from_step, until_step: the steps in which the task takes part, the second excluded; None for
            no end.
        turn: tasks with the same non-empty word take turns: one of them is drawn for each step, in
            proportion to `share`.
    """

    all_losses: ClassVar[tuple[str, ...]] = ()
    """The names of every loss `training_step` can give."""

    batch_size: int
    losses: dict[str, float] = field(default_factory=dict)
    from_step: int = 0
    until_step: int | None = None
    turn: str = ""
    share: float = 1.0

    def __post_init__(self):
        for name, weight in self.losses.items():
            if name not in self.all_losses:
                raise ConfigError(
                    f"Unknown loss {name!r}. Known losses: {', '.join(self.all_losses)}.",
                    "config/key",
                )
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"losses.{name} is {weight}; it must be a finite number, 0 or more.",
                    "config/value",
                )
        if self.batch_size < 1:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it must be at least 1.", "config/value"
            )

    @property
    def loss_weights(self) -> dict[str, float]:
        """The losses that are on, with their weights in the sum, in the order of `all_losses`."""
        return {name: self.losses[name] for name in self.all_losses if self.losses.get(name)}

    def open_data(self) -> None:  # noqa: B027 (optional, not forgotten)
        """Opens and checks the files of the task before a model is loaded; `prepare` goes on with
        them.

        Raises:
            DataError: the data are missing or unusable; the message names the file and the line.
        """

    def prepare(self, processor: Any) -> None:  # noqa: B027 (optional, not forgotten)
        """Opens the data, once, before the first step and in the parent of the worker processes.

        Args:
            processor: the `x2vlm.processing.Processor` of the model (None for tasks that need none,
                as in tests).

        Raises:
            DataError: the data are missing or unusable; the message names the file and the line.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of training samples of an epoch."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """int64 permutation of `range(len(self))`: the order of one epoch. Override to keep
        neighbours of a shard together."""
        return rng.permutation(len(self))

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> Any:
        """One training sample; pure: the same index and generator state give the same sample. Runs
        in worker processes.

        Raises:
            DataError or MediaError: this sample cannot be used. It is counted, named in the log and
                replaced by another one; the run stops when more than `max_bad_fraction` of the
                samples fail.
        """

    @abstractmethod
    def collate(self, samples: list[Any]) -> dict[str, Any]:
        """Samples of one process -> a (nested) dict of CPU tensors. Draws nothing at random."""

    @abstractmethod
    def training_step(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named scalar losses, one for each key of `loss_weights` (others are ignored; skip their
        work), unweighted.

        Args:
            model: the `X2VLM` core with every head, in training mode, under autocast where the run
                asks for it.
            batch: what `collate` gave, on the model's device.
        """

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on validation data, {} for none. `model` is the bare model in eval mode under
        `torch.no_grad`.

        Every process runs it on the same data, so it must not call collectives; it must not change
        the model.
        """
        return {}

    def left_out(self) -> dict[str, float]:
        """Files that the task reads without: what is wrong with each -> its share of the data, for
        the log and the limit."""
        return {}

    def fingerprint(self) -> str:
        """A short text that changes when the data change; a run refuses to go on with other data
        than it began with."""
        return str(len(self))
