"""From tasks to the batches of a step: a pure function of (seed, step, process), so resuming is
starting at a step.

One item of the dataset is everything that one process feeds to the model in one part of one step,
so a single pool of worker processes serves all tasks and works ahead across them.
"""

from __future__ import annotations

import math
import signal
import zlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from train.config import RunConfig
from train.tasks.base import Task
from x2vlm.errors import ConfigError, DataError, X2VLMError

ATTEMPTS = 20
"""Samples tried in the place of one that cannot be read."""
BATCH_SECONDS = 540
"""How long a batch may take to be read: less than the other processes wait for this one, so that
the cause is told."""
GRACE_SECONDS = 60
"""How long a data worker outlives SIGTERM, unless the training process ends it."""


@dataclass(frozen=True)
class StepPart:
    """What one process reads for one part of a step; tasks that rest in this step are absent.

    Attributes:
        batches: task name -> what its `collate` gave.
        sample_ids: task name -> indices of the samples in the task's data.
        problems: a sentence for every sample that could not be read and was replaced.
        error: why there are no batches; carried instead of raised, because worker processes lose
            the type of an exception.
    """

    batches: dict[str, Any]
    sample_ids: dict[str, list[int]]
    problems: list[str]
    error: X2VLMError | None = None

    def pin_memory(self) -> StepPart:
        return replace(self, batches=pin_memory(self.batches))


class StepData(Dataset):
    """Item `step * accumulation + part` is that part of that step for this process.

    Raises:
        ConfigError: a batch size cannot be split evenly (`config/value`).
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        seed: int,
        max_steps: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        self.tasks, self.seed, self.accumulation, self.rank, self.world = (
            tasks,
            seed,
            accumulation,
            rank,
            world,
        )
        for name, task in tasks.items():
            if task.batch_size % (accumulation * world):
                raise ConfigError(
                    f"tasks.{name}.batch_size is {task.batch_size}, which {world} process(es) x "
                    f"{accumulation} part(s) cannot share evenly. Change batch_size or "
                    "accumulation.",
                    "config/value",
                )
        self.active = active_steps(tasks, seed, max_steps)
        self.turns = {name: np.cumsum(active) - active for name, active in self.active.items()}
        self.size = max_steps * accumulation
        self._orders: dict[str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, item: int) -> StepPart:
        step, part = divmod(item, self.accumulation)
        batches, sample_ids, problems = {}, {}, []
        for name, task in self.tasks.items():
            if not self.active[name][step]:
                continue
            share = task.batch_size // self.accumulation
            start = int(self.turns[name][step]) * task.batch_size + part * share
            try:
                picked = [
                    self._sample(name, p, problems)
                    for p in range(start + self.rank, start + share, self.world)
                ]
            except X2VLMError as error:
                return StepPart({}, {}, problems, error)
            sample_ids[name] = [index for index, _ in picked]
            batches[name] = task.collate([sample for _, sample in picked])
        return StepPart(batches, sample_ids, problems)

    def check_steps(self, first: int) -> None:
        """Raises `ConfigError` (`config/value`) when there is a step from `first` on that no task
        takes part in."""
        idle = np.flatnonzero(~np.any(list(self.active.values()), axis=0)[first:])
        if len(idle):
            raise ConfigError(
                f"No task has a loss in step {first + idle[0]}. Name losses with their weights in "
                "the `losses` of a task, and look at from_step and until_step.",
                "config/value",
            )

    def samples_read(self, step: int) -> dict[str, int]:
        """Position in each task's stream before `step`, in samples over all processes."""
        return {
            name: int(self.active[name][:step].sum()) * task.batch_size
            for name, task in self.tasks.items()
        }

    def _sample(self, name: str, position: int, problems: list[str]) -> tuple[int, Any]:
        """The sample at a position of the task's endless stream, or another one where it cannot be
        read."""
        task = self.tasks[name]
        epoch, place = divmod(position, len(task))
        for attempt in range(ATTEMPTS):
            if attempt:
                place = int(self._generator(name, epoch, place, attempt).integers(len(task)))
            index = int(self._order(name, epoch)[place])
            try:
                return index, task.sample(index, self._generator(name, epoch, index))
            except X2VLMError as error:
                problems.append(f"{name} {index}: {error}")
        raise DataError(
            f"{ATTEMPTS} samples of task {name!r} in a row cannot be read; the last: "
            f"{problems[-1]}",
            "data/unreadable",
        )

    def _order(self, name: str, epoch: int) -> np.ndarray:
        if name not in self._orders or self._orders[name][0] != epoch:
            self._orders[name] = (epoch, self.tasks[name].order(self._generator(name, epoch)))
        return self._orders[name][1]

    def _generator(self, name: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), *numbers])


def in_steps(run: RunConfig, tasks: dict[str, Task]) -> RunConfig:
    """The run with `max_steps` computed from `epochs`, once the tasks are prepared: the largest
    data that are trained on are read so often."""
    if not run.epochs:
        return run
    epoch = max(len(t) / t.batch_size for t in tasks.values() if t.loss_weights)
    return replace(run, max_steps=math.ceil(run.epochs * epoch), epochs=0)


def active_steps(tasks: dict[str, Task], seed: int, max_steps: int) -> dict[str, np.ndarray]:
    """bool[max_steps] for each task: whether it takes part; the draws of `turn` are the same on
    every process."""
    steps = np.arange(max_steps)
    active = {}
    for name, task in tasks.items():
        end = max_steps if task.until_step is None else task.until_step
        active[name] = (steps >= task.from_step) & (steps < end) & bool(task.loss_weights)
    for turn in sorted({task.turn for task in tasks.values() if task.turn}):
        names = [name for name, task in tasks.items() if task.turn == turn]
        shares = np.array([active[name] * tasks[name].share for name in names])
        draw = np.random.default_rng([seed, zlib.crc32(turn.encode())]).random(
            max_steps
        ) * shares.sum(axis=0)
        chosen = (draw >= shares.cumsum(axis=0)).sum(axis=0)
        for place, name in enumerate(names):
            active[name] &= chosen == place
    return active


def build_loader(data: StepData, first_step: int, num_workers: int, pin_memory: bool) -> DataLoader:
    """Yields `StepPart`s from `first_step` on."""
    return DataLoader(
        data,
        batch_size=None,
        sampler=range(first_step * data.accumulation, len(data)),
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        timeout=BATCH_SECONDS if num_workers else 0,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else it would draw from the one that the step uses
    )


def read_parts(
    data: StepData, first_step: int, num_workers: int, pin_memory: bool
) -> Generator[StepPart]:
    """Everything this process reads from `first_step` on. Closing it ends the workers."""
    loader = iter(build_loader(data, first_step, num_workers, pin_memory))
    try:
        yield from loader
    finally:
        del loader


def _start_worker(worker: int) -> None:
    """One thread each; a SIGTERM to all processes of the run leaves them time for the step and the
    save that follow it."""
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE_SECONDS))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_num_threads(1)
