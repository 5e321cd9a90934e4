"""How many model calls run side by side on a machine, and with how many torch threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from x2vlm.errors import ParameterError

SMALL_MODEL = 100_000_000  # parameters
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Concurrency:
    """`workers` model calls at a time, each with `threads` torch threads."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} thread{'s' if self.threads > 1 else ''}"


def usable_cores() -> int:
    """Processor cores that this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = QUOTA_FILE.read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or the quota is the word "max"
        return cores


def plan_concurrency(
    parameters: int,
    device: str = "cpu",
    workers: int | None = None,
    threads: int | None = None,
) -> Concurrency:
    """The concurrency for a model on this machine.

    The matrices of a small model are too small to be worth sharing between cores, and its threads
    spin while they wait for each other: each call gets one thread, and as many calls run as there
    are cores. A large model gets all cores for one call, and so does one on a GPU.

    Args:
        parameters: of the model.
        device: where it runs, such as `cpu` or `cuda:0`.
        workers, threads: chosen by the user; by default `X2VLM_WORKERS` and `X2VLM_THREADS` of the
            environment.
    Raises:
        ParameterError: a number below 1, or no number in the environment (`param/range`).
    """
    cores = usable_cores()
    workers = workers or _from_environment("X2VLM_WORKERS")
    threads = threads or _from_environment("X2VLM_THREADS")
    if workers is None and threads is None:
        small = device == "cpu" and parameters < SMALL_MODEL
        return Concurrency(cores, 1) if small else Concurrency(1, cores)
    if workers is None:
        workers = max(1, cores // threads) if device == "cpu" else 1
    return Concurrency(workers, threads or max(1, cores // workers))


def _from_environment(name: str) -> int | None:
    value = os.environ.get(name)
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ParameterError(f"{name} must be a whole number from 1, not {value}.", "param/range")
    return int(value)


def set_threads(threads: int) -> None:
    """Let torch use so many threads for what the calling thread asks of it.

    Threads that have not used torch yet begin with the number that was set last in the process;
    the others keep theirs, so every worker has to call this itself.
    """
    import torch

    torch.set_num_threads(threads)
