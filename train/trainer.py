"""The training loop. It knows no concrete task: it asks tasks for batches and named losses, steps,
and writes both down.

The loop itself is `train`; `Trainer` holds what a step works with. `train.step` joins the tasks,
`train.sharding` shares the run among processes, `train.faults` decides when a run must end.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Generator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from train import state
from train.config import RunConfig
from train.faults import FaultCounter, known_faults
from train.loader import StepData, StepPart, in_steps, read_parts
from train.log import RunLog, start_trackers
from train.lora import add_adapters, merged
from train.optim import build_optimizer, lr_factor, set_learning_rate
from train.passes import Passes
from train.sharding import (
    build_accelerator,
    full,
    load_moments,
    load_weights,
    moments,
    on_main,
    scalars,
    shard,
    weights,
    whole_weights,
)
from train.step import JointStep, describe_share, explicit_attention, freeze
from train.stop import StopSignal
from train.tasks.base import Task
from x2vlm.errors import ConfigError


def train(
    run: RunConfig,
    model: nn.Module,
    tasks: dict[str, Task],
    *,
    processor: Any = None,
    new_parameters: Collection[str] = (),
    export: Callable[[nn.Module, Path], None] | None = None,
    stop: StopSignal | None = None,
) -> int:
    """Trains `model` on the weighted losses of `tasks` until `max_steps`, a stop signal or the time
    limit.

    Args:
        run: the configuration; an unfinished run in `output_dir` goes on where its newest good
            checkpoint stands.
        model: any module that the tasks understand; `clamp_temperature()`, if it has one, is called
            after every step.
        tasks: the tasks of the run, not yet prepared.
        processor: handed to `Task.prepare`.
        new_parameters: names of freshly initialised parameters, see `build_optimizer`.
        export: writes the finished model into a folder in one step: `output_dir/final` (and `best`,
            if `evaluate.metric` is set and an earlier step was better).
        stop: the installed signal handler.

    Returns:
        The number of steps taken so far, `max_steps` when the run is complete.

    Raises:
        TrainingError: losses stay non-finite, too many samples are bad, memory is short, a data
            worker died or hangs, or another process of the run did (`train/process`).
        CheckpointError, ConfigError, DataError: see `train.state`, `train.config`, `train.loader`.
    """
    with (
        known_faults(),
        Trainer(
            run, model, tasks, processor, new_parameters, export, stop or StopSignal()
        ) as trainer,
    ):
        run, step = trainer.run, trainer.restore()
        trainer.announce(step)
        trainer.make_up(step)
        while step < run.max_steps and not trainer.stopping and not trainer.settled(step):
            factor = lr_factor(
                step, run.max_steps, run.optimizer.warmup, run.optimizer.min_lr / run.optimizer.lr
            )
            set_learning_rate(trainer.optimizer, factor)
            losses, read = trainer.passes(step, trainer.parts)
            grad_norm = trainer.clip()
            if trainer.agree(losses, grad_norm, read, step):
                trainer.optimizer.step()
                trainer.clamp()
            trainer.optimizer.zero_grad(set_to_none=True)
            step += 1
            trainer.after_step(step)
        return trainer.finish(step)


class Trainer:
    """What the loop of `train` works with; one step is `passes`, `clip`, `agree`, `after_step`."""

    def __init__(self, run, model, tasks, processor, new_parameters, export, stop: StopSignal):
        self.run, self.model, self.tasks, self.export, self.stop = run, model, tasks, export, stop
        self.started = time.monotonic()
        self.accelerator = build_accelerator(run)
        self.main, self.rank = self.accelerator.is_main_process, self.accelerator.process_index
        self.world = self.accelerator.num_processes
        model.train()  # a loaded one comes ready for inference
        if run.model.lora:
            add_adapters(model, run.model.lora, new_parameters)
        freeze(model, run.model.freeze)
        if self.accelerator.device.type == "cpu":
            explicit_attention(model)
        for task in tasks.values():
            task.prepare(processor)
        self.run = run = in_steps(run, tasks)
        self.data = StepData(
            tasks, run.seed, run.max_steps, run.accumulation, self.rank, self.world
        )
        self.joint = JointStep(model, tasks)
        self.sharded = run.parallel == "fsdp" and self.world > 1
        share = shard if self.sharded else Accelerator.prepare
        self.module = share(self.accelerator, self.joint)
        self.passes = Passes(run, self.joint, self.module, self.accelerator)
        self.optimizer = self.accelerator.prepare(
            build_optimizer(model, run.optimizer, new_parameters)
        )
        self.folder = state.RunFolder(Path(run.output_dir), run.checkpoint, run.evaluate)
        self.settings = state.run_settings(
            run, {name: task.fingerprint() for name, task in tasks.items()}
        )
        self.stopping = False
        self.bad_samples, self.saved_step = 0, -1
        self.interval: dict[str, list[float]] = {}
        self.metrics: dict[str, float] = {}
        self.parts: Generator[StepPart] | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Trainer:
        on_main(lambda: self._exit.enter_context(self.folder) and None)
        return self

    def __exit__(self, *error) -> None:
        if self.parts is not None:
            self.parts.close()
        self._exit.close()

    def restore(self) -> int:
        """Loads the newest good checkpoint, if there is one; returns the step to go on with."""
        found = on_main(self.folder.newest)
        if found is None:
            size = sum(p.nbytes * (3 if p.requires_grad else 1) for p in self.model.parameters())
            on_main(lambda: self.folder.check_space(int(size * state.HEADROOM)))
            return 0
        path, manifest = found
        if not self.run.resume.enabled:
            raise ConfigError(
                f"{self.folder.path} holds a run that stands at step {manifest.step}. Choose "
                "another output_dir, or go on with it (resume.enabled: true).",
                "config/value",
            )
        allowed = self.run.resume.allow_changed
        on_main(lambda: state.check_settings(manifest, self.settings, allowed))
        load_weights(self.model, state.load_state(path, "model"))
        load_moments(self.model, self.optimizer.optimizer, state.load_state(path, "optimizer"))
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.load_state(path, "scaler"))
        self.saved_step, self.metrics = manifest.step, manifest.metrics
        self.bad_samples = manifest.bad_samples
        if self.main and (manifest.world_size, manifest.versions) != (self.world, state.versions()):
            print(
                "Other processes or library versions than before: the same data, but not the same "
                "last bits."
            )
        return manifest.step

    def announce(self, step: int) -> None:
        """Checks and prints what follows from the configuration before the first step."""
        self.data.check_steps(step)
        run, device = self.run, self.accelerator.device.type
        self.parts = read_parts(self.data, step, run.num_workers, pin_memory=device == "cuda")
        self.log = RunLog(
            self.folder.path,
            step,
            run.max_steps,
            lambda step: sum(self.data.samples_read(step).values()),
            self.passes.costs,
            start_trackers(self.accelerator, run.log, self.folder.path, step),
            self.main,
        )
        self.faults = FaultCounter(run.max_bad_fraction, self.bad_samples, self.log)
        self.log.event(
            "resume" if step else "start", step, settings=self.settings, versions=state.versions()
        )
        sizes = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        how = f"{run.precision}, weights sharded" if self.sharded else run.precision
        self.log.say(
            f"{sum(size for size, _ in sizes):,} parameters, "
            f"{sum(size for size, trained in sizes if trained):,} trained, on {self.world} x "
            f"{device} in {how}; steps {step} to {run.max_steps}"
        )
        samples = self.data.samples_read(run.max_steps)
        for name, task in self.tasks.items():
            self.log.say(describe_share(name, task, samples[name], self.world, run.accumulation))
            self.faults.left_out(name, task.left_out(), step)

    def clip(self) -> Tensor:
        """Clips the global norm of the gradient and returns it as it was."""
        if self.sharded:
            for parameter in scalars(self.module):
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        most = self.run.optimizer.clip or math.inf
        return full(self.accelerator.clip_grad_norm_(self.module.parameters(), most))

    def agree(
        self, losses: dict[str, Tensor], grad_norm: Tensor, read: list[StepPart], step: int
    ) -> bool:
        """Shares the numbers of a step among the processes; True when every one is finite, so that
        the step counts.

        The one exchange of a step beside that of the gradients; it also spreads a stop signal and
        the count of unreadable samples.

        Raises:
            TrainingError: too many steps in a row were not finite (`train/nonfinite`), or too many
                samples (`train/data`).
        """
        problems = [problem for part in read for problem in part.problems]
        late = (
            self.run.stop_after_minutes is not None
            and time.monotonic() - self.started > 60 * self.run.stop_after_minutes
        )
        flags = [grad_norm.float(), len(problems), self.stop.requested or late]
        numbers = torch.stack(
            [torch.as_tensor(x, dtype=torch.float32, device=self.accelerator.device) for x in flags]
        )
        numbers = torch.cat([torch.stack(list(losses.values())), numbers])
        *values, norm, bad, stops = self.accelerator.reduce(numbers, "sum").tolist()
        values = {name: value / self.world for name, value in zip(losses, values, strict=True)}
        self.stopping = stops > 0
        if bad:
            seen = sum(self.data.samples_read(step + 1).values())
            self.faults.unreadable(problems, step, seen)
        finite = math.isfinite(norm) and all(math.isfinite(value) for value in values.values())
        values["grad_norm"] = norm / self.world
        if finite:
            self.faults.finite()
            self._note(values | {"data_seconds": self.passes.data_seconds})
        elif not self._lower_scale(step):
            self.faults.non_finite(values, [part.sample_ids for part in read], step, self.model)
        return finite

    def _lower_scale(self, step: int) -> bool:
        """Whether a step may have been too large for fp16 alone: its loss is scaled, so that small
        gradients stay above 0, and from now on less."""
        scaler = self.accelerator.scaler
        if scaler is None:
            return False
        scale = scaler.get_scale()
        scaler.update()
        self.log.event("loss_scale", step, scale=scaler.get_scale())
        return scale > 1

    def clamp(self) -> None:
        """Lets the model put parameters back into their range."""
        if hasattr(self.model, "clamp_temperature"):
            self.model.clamp_temperature()

    def after_step(self, step: int) -> None:
        """Log, evaluation and checkpoint, each when due, with `step` steps taken."""
        run = self.run
        self.log.step(step)
        if step % run.log.every == 0 or step == run.max_steps:
            means = {name: sum(values) / len(values) for name, values in self.interval.items()}
            lrs = {group["lr"] for group in self.optimizer.param_groups}
            self.log.scalars("train", step, {**means, "lr": max(lrs)})
            self.interval.clear()
        self.metrics = {}
        if not self.stopping:
            self.measure(step)
        if step % run.checkpoint.every == 0:
            self.save(step)

    def make_up(self, step: int) -> None:
        """The evaluation after the step that the run goes on from, if a stop cut it short."""
        if step and not self.metrics:
            self.measure(step)

    def measure(self, step: int) -> None:
        """An evaluation, when due, and a checkpoint that holds it where checkpoints are compared by
        it.

        Raises:
            ConfigError: the evaluation does not give `evaluate.metric` (`config/value`).
        """
        run = self.run
        if step != run.max_steps and not (run.evaluate.every and step % run.evaluate.every == 0):
            return
        self.metrics = self.evaluate()
        if not self.metrics:
            return
        self.log.scalars("evaluate", step, self.metrics)
        self.saved_step = -1  # one that is on disk has no metrics
        if run.evaluate.metric:
            self.save(step)
        if run.evaluate.metric not in {"", *self.metrics}:
            measured = ", ".join(self.metrics)
            raise ConfigError(
                f"evaluate.metric is {run.evaluate.metric!r}; this run measures {measured}.",
                "config/value",
            )

    def evaluate(self) -> dict[str, float]:
        """`{"task/metric": value}` of every task. A stop signal cuts it short, with {}, unless
        other processes would have to wait."""
        metrics, alone = {}, self.world == 1
        interruptible = self.stop.interruptible() if alone else contextlib.nullcontext()
        self.model.eval()
        with (
            whole_weights(self.module),
            torch.no_grad(),
            self.accelerator.autocast(),
            interruptible,
        ):
            for name, task in self.tasks.items():
                metrics |= {
                    f"{name}/{key}": float(value)
                    for key, value in task.evaluate(self.model).items()
                }
        self.model.train()
        if alone and self.stop.requested:
            self.stopping = True
            return {}
        return metrics

    def settled(self, step: int) -> bool:
        """Whether the evaluations of `evaluate.patience` were no better than one before them."""
        config = self.run.evaluate
        best = config.patience and self.metrics and on_main(self.folder.best)
        return bool(best) and step - state.step_of(best) >= config.patience * config.every

    def save(self, step: int) -> None:
        """A checkpoint that takes the run up after `step` steps; nothing when there is one
        already."""
        if step == self.saved_step:
            return
        states = {
            "model": weights(self.model, self.main),
            "optimizer": moments(self.model, self.optimizer.optimizer, self.main),
        }
        if self.accelerator.scaler:
            states["scaler"] = self.accelerator.scaler.state_dict()
        about = {
            "step": step,
            "settings": self.settings,
            "samples_read": self.data.samples_read(step),
            "bad_samples": self.faults.bad_samples,
            "metrics": self.metrics,
            "world_size": self.world,
        }
        on_main(lambda: self.folder.save(states, **about) and None)
        self.saved_step = step
        self.log.event("checkpoint", step)

    def finish(self, step: int) -> int:
        """The last checkpoint and, when the run is complete, the finished weights."""
        self.parts.close()  # workers that end in the middle of a save would interrupt it
        self.save(step)
        if step < self.run.max_steps and not self.settled(step):
            said = f"Stopped after step {step} of {self.run.max_steps}"
            self.log.say(f"{said}; the same command goes on from there.")
        elif self.export:
            self._export("final")
            best = on_main(lambda: self.folder.best_beside(step))
            if best:
                load_weights(self.model, state.load_state(best, "model"))
                self._export("best")
        self.log.close()
        return step

    def _export(self, name: str) -> None:
        with whole_weights(self.module):
            on_main(lambda: self.export(merged(self.model), self.folder.path / name) and None)

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.interval.setdefault(name, []).append(value)
