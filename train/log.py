"""The log of a run: `log.jsonl` (one line an event), accelerate's trackers (TensorBoard, W&B,
MLflow), the terminal. Lost log lines never stop a run."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from tqdm import tqdm

from train.config import LogConfig
from train.cost import TERA, StepCosts


class RunLog:
    """Writes on the main process only; elsewhere every method does nothing.

    Args:
        folder: the run's folder.
        first_step, max_steps: for the progress bar.
        samples_read: samples over all tasks before a step, for samples/s.
        costs: the operations of the steps so far.
        trackers: see `start_trackers`.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        max_steps: int,
        samples_read: Callable[[int], int],
        costs: StepCosts,
        trackers: Sequence[GeneralTracker] = (),
        main: bool = True,
    ):
        self.path, self.samples_read, self.main = folder / "log.jsonl", samples_read, main
        self.costs, self.max_steps = costs, max_steps
        self._lost = False
        self._trackers = trackers
        self._bar = tqdm(
            total=max_steps,
            initial=first_step,
            unit="step",
            disable=None if main else True,
            dynamic_ncols=True,
        )
        self._since = (first_step, time.monotonic(), 0)

    def event(self, kind: str, step: int, **values: Any) -> None:
        """One line: `{"event": kind, "step": step, ...}`. NaN and infinity become text, so that
        every line is JSON."""
        if not self.main:
            return
        self._guard(
            lambda: self._append(json.dumps(_finite({"event": kind, "step": step, **values})))
        )

    def say(self, text: str) -> None:
        """A line on the terminal, above the progress bar."""
        if self.main:
            tqdm.write(text)

    def step(self, step: int) -> None:
        """Moves the progress bar."""
        self._bar.update(step - self._bar.n)

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Numbers of a training interval (`train`) or an evaluation (`evaluate`)."""
        if not self.main:
            return
        if kind == "train":
            values = {**values, **self._speed(step)}
        self.event(kind, step, **values)
        named = {f"{kind}/{key}": value for key, value in values.items()}
        for tracker in self._trackers:
            self._guard(lambda tracker=tracker: tracker.log(named, step=step))
        shown = {key.rpartition("_loss")[0] or key: f"{value:.4g}" for key, value in values.items()}
        if kind == "train" and not self._bar.disable:
            self._bar.set_postfix(shown, refresh=False)
        else:
            self.say(
                f"{kind} {step}/{self._bar.total}: "
                + "  ".join(f"{key} {value}" for key, value in shown.items())
            )

    def close(self) -> None:
        self._bar.close()
        for tracker in self._trackers:
            self._guard(tracker.finish)

    def _speed(self, step: int) -> dict[str, float]:
        """Since the last call: samples and 10^12 operations a second, the latter's share of the
        device's peak (MFU), the hours that the rest of the run takes at that speed; and the peak
        of memory in GB."""
        (before, then, flops), now = self._since, time.monotonic()
        self._since = (step, now, self.costs.flops)
        seconds = max(now - then, 1e-9)
        speed = {
            "samples_per_second": (self.samples_read(step) - self.samples_read(before)) / seconds,
            "hours_left": (self.max_steps - step) * seconds / max(step - before, 1) / 3600,
            "memory_gb": peak_memory() / 1e9,
        }
        reached = (self.costs.flops - flops) / seconds
        if reached:
            speed["teraflops"] = reached / TERA
        if reached and self.costs.peak:
            speed["mfu"] = reached / self.costs.peak
        return speed

    def _append(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _guard(self, write) -> None:
        """Runs a write; the first failure is said, further ones are silent, none gets out."""
        try:
            write()
        except Exception as error:  # disk full, folder gone, a tracker's thread dead: all alike
            if not self._lost:
                self.say(
                    f"The log cannot be written ({type(error).__name__}); training goes on without "
                    f"it."
                )
            self._lost = True


def peak_memory() -> int:
    """Bytes that this process held at most: on its GPU, without one in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _finite(value: Any) -> Any:
    """NaN and infinity as text, at any depth of dicts."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def start_trackers(
    accelerator: Accelerator, config: LogConfig, folder: Path, first_step: int
) -> list[GeneralTracker]:
    """The trackers of a run on the main process. One that is not installed or does not start is
    named, and the run goes on without it.

    Args:
        accelerator: its `log_with` holds the trackers that are installed.
    """
    if not accelerator.is_main_process:
        return []
    options = {
        "tensorboard": {"purge_step": first_step or None},
        "wandb": {"name": folder.name, "dir": str(folder)},
        "mlflow": {"run_name": folder.name},
    }
    installed = [str(name) for name in accelerator.log_with]
    for name in config.trackers:
        if name not in installed:
            print(f"{name} is not installed; log.jsonl has every number.")
    try:
        accelerator.init_trackers(config.project, init_kwargs=options)
    except Exception as error:  # no login, no network, no folder: whatever a tracker raises
        print(f"{', '.join(installed)} cannot start ({error}); log.jsonl has every number.")
        return []
    return accelerator.trackers
