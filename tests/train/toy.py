"""A toy run for the tests of the engine: 71 weights, losses with dropout, milliseconds a step,
through the real engine.

`ToyRuns` starts runs in processes of their own that can be killed; a fork server imports torch once
for all of them.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import nn

from train import sharding, state, trainer
from train.config import RunConfig as Run
from train.config import build
from train.stop import StopSignal
from train.tasks.base import Task
from x2vlm.errors import DataError, X2VLMError
from x2vlm.losses import box_losses, classification_loss, contrastive_loss

SIZE = 6


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.image_projection = nn.Linear(SIZE, 4)
            self.text = nn.ModuleDict(
                {"layers": nn.Sequential(nn.Linear(SIZE, 4), nn.LayerNorm(4))}
            )  # Muon takes layers
            self.idle_head = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.2)
        self.temperature = nn.Parameter(torch.tensor(0.3))

    def clamp_temperature(self):
        with torch.no_grad():
            self.temperature.clamp_(0.001, 0.5)


@dataclass(kw_only=True)
class ToyTask(Task):
    """Pairs of noisy vectors: a regression with dropout, a contrastive loss, and means over the
    samples that have a label.

    Attributes:
        samples: size of the data.
        bad: indices that cannot be read.
        nan_step: index of a sample that holds NaN.
        delay: seconds a training step sleeps.
        reading: seconds it takes to read a sample.
        evaluation_seconds: how long an evaluation takes.
        uneven: process r leaves out r samples of its batch, as tasks do whose samples hold more or
            fewer texts.
    """

    all_losses = ("regression_loss", "contrastive_loss", "label_loss", "box_l1_loss")

    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ToyTask.all_losses, 1.0))
    samples: int = 50
    bad: tuple[int, ...] = ()
    nan: tuple[int, ...] = ()
    delay: float = 0.0
    reading: float = 0.0
    dropout: bool = True
    evaluation_seconds: float = 0.0
    uneven: bool = False

    def __len__(self):
        return self.samples

    def sample(self, index, rng):
        time.sleep(self.reading)
        if index in self.bad:
            raise DataError(f"toy.jsonl line {index}: cut off.", "data/line")
        point = np.random.default_rng(index).normal(size=SIZE)
        image, text = point + 0.1 * rng.normal(size=SIZE), point + 0.1 * rng.normal(size=SIZE)
        if index in self.nan:
            image[0] = np.nan
        return torch.tensor(image, dtype=torch.float32), torch.tensor(text, dtype=torch.float32)

    def collate(self, samples):
        images, texts = zip(*samples)
        return {"image": torch.stack(images), "text": torch.stack(texts)}

    def training_step(self, model, batch):
        time.sleep(self.delay)
        left_out = int(os.environ.get("RANK", 0)) if self.uneven else 0
        image, text = (batch[name][left_out:] for name in ("image", "text"))
        unlabelled = text[:, 0] < 0
        image, text = model.image_projection(image), model.text["layers"](text)
        dropped = model.dropout(image) if self.dropout else image
        labels = text.detach().argmax(dim=1).masked_fill(unlabelled, -100)
        return {
            "regression_loss": (dropped - text.detach()).square().mean(),
            "label_loss": classification_loss(image, labels),
            "box_l1_loss": box_losses(image.sigmoid(), text.detach().sigmoid(), unlabelled)[0],
            "contrastive_loss": contrastive_loss(
                nn.functional.normalize(image, dim=-1),
                nn.functional.normalize(text, dim=-1),
                model.temperature,
            ),
        }

    def evaluate(self, model):
        deadline = time.monotonic() + self.evaluation_seconds
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return {"bias": float(model.image_projection.bias.sum())}


def toy_run(
    folder: Path, *, steps: int = 12, task: dict | None = None, **changes
) -> tuple[Run, dict[str, Task]]:
    """A run of 12 steps that saves every 3, and its task; dotted names in `changes` are written
    with `__`."""
    values = {
        "output_dir": str(folder),
        "max_steps": steps,
        "tasks": {"toy": {"type": "toy"}},
        "optimizer": {"lr": 0.01, "warmup": 2},
        "device": "cpu",
        "num_workers": 0,
        "log": {"every": 1, "trackers": []},
        "checkpoint": {"every": 3},
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        block = values
        for part in path:
            block = block.setdefault(part, {})
        block[last] = value
    return build(Run, values), {"toy": ToyTask(**{"batch_size": 8, **(task or {})})}


def train_toy(folder: Path, **changes) -> ToyModel:
    """One run in this process; the trained model."""
    run, tasks = toy_run(folder, **changes)
    model = ToyModel()
    trainer.train(run, model, tasks)
    return model


def final_state(folder: Path) -> dict:
    """Weights and moments of the newest checkpoint, flat."""
    path = sorted(folder.glob("step-" + "[0-9]" * 8))[-1]
    return state.flatten({stem: state.load_state(path, stem) for stem in ("model", "optimizer")})


def assert_same_state(left: Path, right: Path) -> None:
    """Bitwise equality of weights and moments."""
    left, right = final_state(left), final_state(right)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, different


def losses(folder: Path) -> dict[int, tuple[float, ...]]:
    """step -> its losses, the last log line of a step winning."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["event"] == "train"]
    return {
        line["step"]: tuple(
            v for k, v in sorted(line.items()) if k.endswith(("_loss", "grad_norm"))
        )
        for line in lines
    }


def _child(
    folder: Path, output: Path, changes: dict, environment: dict, save_delay: float, patience: float
) -> None:
    """Runs in a forked process: trains, and exits as `python -m train.pretrain` would."""
    stop = StopSignal().install()
    multiprocessing.set_start_method(
        "fork", force=True
    )  # of data workers: as outside a fork server
    os.environ.update(environment)
    torch.set_num_threads(1)
    sharding.PATIENCE = timedelta(seconds=patience)
    if save_delay:
        _slow_writes(save_delay)
    with (
        open(output, "w", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            run, tasks = toy_run(folder, **changes)
            trainer.train(run, ToyModel(), tasks, stop=stop)
        except X2VLMError as error:
            print(error)
            raise SystemExit(1) from error


def _slow_writes(delay: float) -> None:
    """Makes the window in which a kill meets a half-written checkpoint wide: pauses before and
    after every flush to disk."""
    flush = os.fsync

    def slow(descriptor):
        time.sleep(delay)
        flush(descriptor)
        time.sleep(delay)

    state.os.fsync = slow


class ToyRuns:
    """Starts toy runs in processes of their own."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, itertools.count()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.train.toy"])

    def start(
        self,
        folder: Path,
        environment: dict | None = None,
        save_delay=0.0,
        patience=600.0,
        **changes,
    ):
        """The running process; `output` of it is the file with everything it prints."""
        output = self.folder / f"output-{next(self.count)}.txt"
        process = self.context.Process(
            target=_child,
            args=(folder, output, changes, environment or {}, save_delay, patience),
            daemon=False,
        )
        process.start()
        process.output = output
        return process

    def finish(self, *processes, timeout: float = 60) -> str:
        """Waits for processes to end well; what they printed."""
        for process in processes:
            process.join(timeout)
        text = "".join(process.output.read_text() for process in processes)
        assert [process.exitcode for process in processes] == [0] * len(processes), text
        return text

    def pair(self, folder: Path, **changes) -> list:
        """Two processes of one run, joined by gloo."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
        }
        ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        return [self.start(folder, environment=rank, **changes) for rank in ranks]


def kill(process, number: int = signal.SIGKILL) -> None:
    if process.is_alive():
        os.kill(process.pid, number)
    process.join(30)
