"""What may go wrong in a run, how much of it is borne, and the sentence that ends the run.

Single unreadable samples are replaced and single steps with non-finite numbers are skipped; both
are counted and named in the log. Too many of them, a lack of memory, and a data worker or another
process that died or hangs end the run with a `TrainingError`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from train import state
from train.log import RunLog
from train.sharding import full
from x2vlm.errors import X2VLMError

MAX_SKIPPED = 3
"""Steps in a row that may be skipped for a non-finite loss or gradient."""
BAD_SAMPLE_BASE = 1000
"""The share of unreadable samples is taken of at least so many."""
FAULTS = {
    state.DEAD_WORKER: "A data worker died, often for want of memory. Lower num_workers or "
    "batch_size",
    "DataLoader timed out": "The data workers gave no batch for nine minutes. See whether the disk "
    "of the data still answers; if it is only slow, raise num_workers",
}
"""What torch says of its data workers -> what it means."""


class TrainingError(X2VLMError):
    """A run that cannot go on; codes `train/*`."""


@contextlib.contextmanager
def known_faults() -> Iterator[None]:
    """What torch says of a data worker or another process that died or hangs becomes a
    `TrainingError`, so that all end and none waits for ever. The death of a worker is raised
    wherever the training process happens to be."""
    try:
        yield
    except RuntimeError as error:  # gloo raises no kind of its own
        said = next((said for sign, said in FAULTS.items() if sign in str(error)), None)
        if said:
            message = (
                f"{said}, and run the same command again; it goes on from the last checkpoint."
            )
            raise TrainingError(message, "train/worker") from error
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error).lower():
            raise
        raise TrainingError(
            "Another process of this run has ended, or gave no sign for ten minutes; its own "
            "output says why. End what is left of the run and start the same command again; it "
            "goes on from the last checkpoint.",
            "train/process",
        ) from error


@contextlib.contextmanager
def known_memory(step: int, batches: dict[str, Any]) -> Iterator[None]:
    """Turns `torch.OutOfMemoryError` into a `TrainingError` that names the batches' shapes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        shapes = {name: list(map(list, _shapes(batch))) for name, batch in batches.items()}
        raise TrainingError(
            f"The device ran out of memory in step {step}; batch shapes: {shapes}. Raise "
            "accumulation, or lower batch_size, image_size or precision.",
            "train/memory",
        ) from error


class FaultCounter:
    """Counts what is borne, writes it into the log, and raises when it is too much.

    Args:
        max_bad_fraction: the share of samples, or of a task's data, that may be unreadable.

    Attributes:
        bad_samples: unreadable samples since the run began, over all processes.
    """

    def __init__(self, max_bad_fraction: float, bad_samples: int, log: RunLog):
        self.max_bad_fraction, self.bad_samples, self.log = max_bad_fraction, bad_samples, log
        self.skipped = 0

    def left_out(self, task: str, left_out: dict[str, float], step: int) -> None:
        """Names the files that a task reads without.

        Args:
            left_out: what is wrong with each file -> its share of the task's data.

        Raises:
            TrainingError: together they are too much (`train/data`).
        """
        if not left_out:
            return
        share = sum(left_out.values())
        for problem in left_out:
            self.log.say(f"    Left out: {problem}")
        self.log.event("left_out", step, task=task, problems=list(left_out), share=share)
        if share > self.max_bad_fraction:
            raise TrainingError(
                f"{share:.1%} of the data of task {task!r} cannot be read, more than "
                f"{self.max_bad_fraction:.1%}: {next(iter(left_out))} Repair what is left out, "
                "or raise max_bad_fraction.",
                "train/data",
            )

    def unreadable(self, problems: list[str], step: int, seen: int) -> None:
        """Counts samples that were replaced, of `seen` so far.

        Args:
            problems: a sentence for each on this process; all processes call this together.

        Raises:
            TrainingError: they are too many (`train/data`).
        """
        problems = [problem for told in gather_object([problems]) for problem in told]
        self.bad_samples += len(problems)
        for problem in problems:
            self.log.say(f"Unreadable sample replaced: {problem}")
        self.log.event("bad_samples", step, count=self.bad_samples, problems=problems)
        if self.bad_samples > self.max_bad_fraction * max(BAD_SAMPLE_BASE, seen):
            raise TrainingError(
                f"{self.bad_samples} samples could not be read, more than "
                f"{self.max_bad_fraction:.1%} of those seen. Repair the data that the lines "
                "above name, or raise max_bad_fraction.",
                "train/data",
            )

    def finite(self) -> None:
        """A step that counts ends a row of skipped ones."""
        self.skipped = 0

    def non_finite(
        self,
        values: dict[str, float],
        sample_ids: list[dict[str, list[int]]],
        step: int,
        model: nn.Module,
    ) -> None:
        """Counts a skipped step.

        Args:
            values: the losses and `grad_norm`.
            sample_ids: of the parts of this process's step; all processes call this together.

        Raises:
            TrainingError: too many in a row (`train/nonfinite`); the message says whether the
                weights are still good.
        """
        self.skipped += 1
        ids = gather_object([sample_ids])
        losses = [name for name in values if name != "grad_norm"]
        broken = [name for name in losses if not math.isfinite(values[name])] or ["gradient"]
        self.log.event("skip", step, losses=values, sample_ids=ids)
        self.log.say(f"Step {step} skipped: {', '.join(broken)} not finite; samples {ids}")
        if self.skipped <= MAX_SKIPPED:
            return
        weights = [name for name, p in model.named_parameters() if not _finite(p)]
        where = "all weights are finite"
        if weights:
            where = f"weights already hold it: {', '.join(weights[:5])}"
        raise TrainingError(
            f"{', '.join(broken)} not finite in step {step}, the {self.skipped}th in a row; "
            f"{where}. Its samples: {ids}. Lower optimizer.lr, use fp32, or look at these "
            "samples; the last checkpoint is good.",
            "train/nonfinite",
        )


def _finite(parameter: Tensor) -> bool:
    return bool(full(parameter.detach()).isfinite().all())


def _shapes(batch: Any) -> Iterator[torch.Size]:
    if isinstance(batch, dict):
        for value in batch.values():
            yield from _shapes(value)
    elif isinstance(batch, Tensor):
        yield batch.shape
