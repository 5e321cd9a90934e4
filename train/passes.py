"""The passes of a step: every part of it forward and backward, and before them, with a gradient
cache, the features of all parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from train.config import RunConfig
from train.cost import StepCosts
from train.faults import known_memory
from train.loader import StepPart
from train.step import JointStep, seed_step
from x2vlm.losses import StepFeatures


class Passes:
    """Gradients of the weighted sum of the losses.

    Attributes:
        data_seconds: how long the latest step waited for its data.
        costs: the operations of the steps so far.
    """

    def __init__(
        self, run: RunConfig, joint: JointStep, module: nn.Module, accelerator: Accelerator
    ):
        self.run, self.joint, self.module, self.accelerator = run, joint, module, accelerator
        self.data_seconds = 0.0
        # Compiled layers and shards hide their products from the counter.
        counts = not run.compile and run.parallel == "ddp"
        self.costs = StepCosts(accelerator.device, counts)

    def __call__(
        self, step: int, parts: Iterator[StepPart]
    ) -> tuple[dict[str, Tensor], list[StepPart]]:
        """All parts of a step: the mean of each loss, and what was read.

        Raises:
            DataError or MediaError: a part could not be read.
            TrainingError: the device ran out of memory (`train/memory`).
        """
        count, self.data_seconds = self.run.accumulation, 0.0
        means: dict[str, Tensor] = {}
        read, features = [], None
        if self.run.gradient_cache:
            read = [self._read(parts) for _ in range(count)]
            features = self._features(step, read)
        for number in range(count):
            if features is None:
                read.append(self._read(parts))
            batches = self._start(step, number, read[number])
            last = number + 1 == count
            exchange = contextlib.nullcontext() if last else self.accelerator.no_sync(self.module)
            seen = features.part(number) if features else contextlib.nullcontext()
            with known_memory(step, batches), exchange, seen, self.costs.of(tuple(batches)):
                losses = self.module(batches)
                total = self.joint.weighted_sum(losses)
                self.accelerator.backward(total / count)
            for name, loss in losses.items():
                means[name] = means.get(name, 0) + loss.detach().float() / count
        return means, read

    def _read(self, parts: Iterator[StepPart]) -> StepPart:
        started = time.monotonic()
        part = next(parts)
        self.data_seconds += time.monotonic() - started
        if part.error:
            raise part.error
        return part

    def _start(self, step: int, number: int, part: StepPart) -> dict[str, Any]:
        """The batches of a part on the device, with its random numbers at their beginning."""
        seed_step(self.run.seed, step, number, self.accelerator.process_index)
        return send_to_device(part.batches, self.accelerator.device, non_blocking=True)

    def _features(self, step: int, read: list[StepPart]) -> StepFeatures:
        """The features that the contrastive losses of each part compare."""
        features = StepFeatures(len(read))
        for number, part in enumerate(read):
            batches = self._start(step, number, part)
            with (
                known_memory(step, batches),
                features.first(number),
                torch.no_grad(),
                self.accelerator.autocast(),
            ):
                self.joint.contrast(batches)
        return features
