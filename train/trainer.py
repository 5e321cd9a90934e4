"""The training loop. It knows no concrete task: it asks tasks for batches and named losses, steps,
and writes both down.

One process, DDP and FSDP, fp32 and bf16 come from accelerate. The official code needs two backward
passes when video takes part; here every active task goes through one forward of one module and the
weighted sum gets one backward, so that DistributedDataParallel sees one forward and one backward
whatever the mixture.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Collection, Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from torch import Tensor, nn

from train import state
from train.config import RunConfig
from train.loader import StepData, StepPart, build_loader
from train.log import RunLog
from train.optim import build_optimizer, lr_factor, set_learning_rate
from train.stop import StopSignal
from train.tasks.base import Task
from x2vlm.errors import CheckpointError, ConfigError, X2VLMError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others."""
MAX_SKIPPED = 3
"""Steps in a row that may be skipped for a non-finite loss or gradient."""
BAD_SAMPLE_BASE = 1000
"""The part of unreadable samples is counted over at least so many."""
FAULTS = {
    state.DEAD_WORKER: "A data worker died, often for want of memory. Lower num_workers or "
    "batch_size",
    "DataLoader timed out": "The data workers gave no batch for nine minutes. See whether the disk "
    "of the data still answers; if it is only slow, raise num_workers",
}
"""What torch says of its data workers -> what it means."""


class TrainingError(X2VLMError):
    """A run that cannot go on; codes `train/*`."""


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
        step = trainer.restore()
        trainer.announce(step)
        trainer.make_up(step)
        while step < run.max_steps and not trainer.stopping:
            factor = lr_factor(
                step, run.max_steps, run.optimizer.warmup, run.optimizer.min_lr / run.optimizer.lr
            )
            set_learning_rate(trainer.optimizer, factor)
            losses, read = trainer.forward_backward(step)
            grad_norm = trainer.clip()
            if trainer.agree(losses, grad_norm, read, step):
                trainer.optimizer.step()
                trainer.clamp()
            trainer.optimizer.zero_grad(set_to_none=True)
            step += 1
            trainer.after_step(step)
        return trainer.finish(step)


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


class JointStep(nn.Module):
    """Every active task in one forward: batches by task name to `{"task/loss": scalar}`."""

    def __init__(self, model: nn.Module, tasks: dict[str, Task]):
        super().__init__()
        self.model = model
        self.tasks = tasks

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        losses = {}
        for name, batch in batches.items():
            given = self.tasks[name].training_step(self.model, batch)
            losses |= {f"{name}/{loss}": given[loss] for loss in self.tasks[name].loss_weights}
        return losses


class Trainer:
    """What the loop of `train` works with; one step is `forward_backward`, `clip`, `agree`,
    `after_step`."""

    def __init__(self, run, model, tasks, processor, new_parameters, export, stop: StopSignal):
        self.run, self.model, self.tasks, self.export, self.stop = run, model, tasks, export, stop
        self.started = time.monotonic()
        self.accelerator = build_accelerator(run)
        self.main, self.rank = self.accelerator.is_main_process, self.accelerator.process_index
        self.world = self.accelerator.num_processes
        model.train()  # a loaded one comes ready for inference
        freeze(model, run.model.freeze)
        if self.accelerator.device.type == "cpu":
            explicit_attention(model)
        for task in tasks.values():
            task.prepare(processor)
        self.data = StepData(
            tasks, run.seed, run.max_steps, run.accumulation, self.rank, self.world
        )
        self.weights = {
            f"{name}/{loss}": w
            for name, task in tasks.items()
            for loss, w in task.loss_weights.items()
        }
        self.sharded = run.parallel == "fsdp" and self.world > 1
        joint = JointStep(model, tasks)
        self.module = self._shard(joint) if self.sharded else self.accelerator.prepare(joint)
        self.optimizer = self.accelerator.prepare(
            build_optimizer(model, run.optimizer, new_parameters)
        )
        self.folder = state.RunFolder(Path(run.output_dir), run.checkpoint, run.evaluate)
        self.settings = state.run_settings(
            run, {name: task.fingerprint() for name, task in tasks.items()}
        )
        self.stopping = False
        self.skipped, self.bad_samples, self.saved_step = 0, 0, -1
        self.interval: dict[str, list[float]] = {}
        self.metrics: dict[str, float] = {}
        self.parts: Generator[StepPart] | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Trainer:
        self._on_main(lambda: self._exit.enter_context(self.folder) and None)
        return self

    def __exit__(self, *error) -> None:
        if self.parts is not None:
            self.parts.close()
        self._exit.close()

    def restore(self) -> int:
        """Loads the newest good checkpoint, if there is one; returns the step to go on with."""
        found = self._on_main(self.folder.newest)
        if found is None:
            size = sum(p.nbytes * (3 if p.requires_grad else 1) for p in self.model.parameters())
            self._on_main(lambda: self.folder.check_space(int(size * state.HEADROOM)))
            return 0
        path, manifest = found
        if not self.run.resume.enabled:
            raise ConfigError(
                f"{self.folder.path} holds a run that stands at step {manifest.step}. Choose "
                "another output_dir, or go on with it (resume.enabled: true).",
                "config/value",
            )
        self._on_main(
            lambda: state.check_settings(manifest, self.settings, self.run.resume.allow_changed)
        )
        load_weights(self.model, state.load_state(path, "model"))
        load_moments(self.model, self.optimizer.optimizer, state.load_state(path, "optimizer"))
        self.bad_samples, self.saved_step, self.metrics = (
            manifest.bad_samples,
            manifest.step,
            manifest.metrics,
        )
        if self.main and (manifest.world_size, manifest.versions) != (self.world, state.versions()):
            print(
                "Other processes or library versions than before: the same data, but not the same "
                "last bits."
            )
        return manifest.step

    def announce(self, step: int) -> None:
        """Checks and prints what follows from the configuration before the first step."""
        self.data.check_steps(step)
        self.parts = self.read_from(step)
        run, trainable = (
            self.run,
            sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        )
        samples = self.data.samples_read(run.max_steps)
        self.log = RunLog(
            self.folder.path,
            step,
            run.max_steps,
            lambda step: sum(self.data.samples_read(step).values()),
            run.log.tensorboard,
            self.main,
        )
        self.log.event(
            "resume" if step else "start", step, settings=self.settings, versions=state.versions()
        )
        how = f"{run.precision}, weights sharded" if self.sharded else run.precision
        self.log.say(
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {trainable:,} "
            f"trained, on {self.world} x {self.accelerator.device.type} in {how}; steps {step} to "
            f"{run.max_steps}"
        )
        for name, task in self.tasks.items():
            part = task.batch_size // (self.world * run.accumulation)
            self.log.say(
                f"  {name}: {task.batch_size} a step = {self.world} processes x {run.accumulation} "
                f"parts x {part}; {len(task):,} samples, {samples[name] / len(task):.1f} epochs; "
                + (
                    ", ".join(f"{loss} x {w:g}" for loss, w in task.loss_weights.items())
                    or "no loss"
                )
            )
            self._allow_left_out(name, task.left_out(), step)

    def _allow_left_out(self, name: str, left_out: dict[str, float], step: int) -> None:
        """Names the files that a task reads without. Raises `TrainingError` when they are too much
        of its data."""
        if not left_out:
            return
        share = sum(left_out.values())
        for problem in left_out:
            self.log.say(f"    Left out: {problem}")
        self.log.event("left_out", step, task=name, problems=list(left_out), share=share)
        if share > self.run.max_bad_fraction:
            raise TrainingError(
                f"{share:.1%} of the data of task {name!r} cannot be read, more than "
                f"{self.run.max_bad_fraction:.1%}: {next(iter(left_out))} Repair what is left out, "
                "or raise max_bad_fraction.",
                "train/data",
            )

    def read_from(self, step: int) -> Generator[StepPart]:
        """Everything this process reads from `step` on."""
        loader = iter(
            build_loader(
                self.data, step, self.run.num_workers, self.accelerator.device.type == "cuda"
            )
        )
        try:
            yield from loader
        finally:
            del loader  # ends the workers

    def forward_backward(self, step: int) -> tuple[dict[str, Tensor], list[StepPart]]:
        """All parts of a step: gradients of the weighted sum, the mean of each loss, and what was
        read."""
        means: dict[str, Tensor] = {}
        read = []
        for part in range(self.run.accumulation):
            waited = time.monotonic()
            read.append(next(self.parts))
            self._note({"data_seconds": time.monotonic() - waited})
            if read[-1].error:
                raise read[-1].error
            seed_step(self.run.seed, step, part, self.rank)
            last = part + 1 == self.run.accumulation
            batches = send_to_device(read[-1].batches, self.accelerator.device, non_blocking=True)
            try:
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                    losses = self.module(batches)
                    total = sum(self.weights[name] * loss for name, loss in losses.items())
                    self.accelerator.backward(total / self.run.accumulation)
            except torch.OutOfMemoryError as error:
                shapes = {name: list(map(list, _shapes(batch))) for name, batch in batches.items()}
                raise TrainingError(
                    f"The device ran out of memory in step {step}; batch shapes: {shapes}. Raise "
                    "accumulation, or lower batch_size, image_size or precision.",
                    "train/memory",
                ) from error
            for name, loss in losses.items():
                means[name] = means.get(name, 0) + loss.detach().float() / self.run.accumulation
        return means, read

    def clip(self) -> Tensor:
        """Clips the global norm of the gradient and returns it as it was."""
        if self.sharded:
            for parameter in _scalars(self.module):
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        return full(
            self.accelerator.clip_grad_norm_(
                self.module.parameters(), self.run.optimizer.clip or math.inf
            )
        )

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
            self._count_bad(
                [problem for told in gather_object([problems]) for problem in told], step
            )
        finite = math.isfinite(norm) and all(math.isfinite(value) for value in values.values())
        if finite:
            self.skipped = 0
            self._note({**values, "grad_norm": norm / self.world})
        else:
            self._skip(values, norm, [part.sample_ids for part in read], step)
        return finite

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
        with self._whole(), torch.no_grad(), self.accelerator.autocast(), interruptible:
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

    def save(self, step: int) -> None:
        """A checkpoint that takes the run up after `step` steps; nothing when there is one
        already."""
        if step == self.saved_step:
            return
        states = {
            "model": weights(self.model, self.main),
            "optimizer": moments(self.model, self.optimizer.optimizer, self.main),
        }
        about = {
            "step": step,
            "settings": self.settings,
            "samples_read": self.data.samples_read(step),
            "bad_samples": self.bad_samples,
            "metrics": self.metrics,
            "world_size": self.world,
        }
        self._on_main(lambda: self.folder.save(states, **about) and None)
        self.saved_step = step
        self.log.event("checkpoint", step)

    def finish(self, step: int) -> int:
        """The last checkpoint and, when the run is complete, the finished weights."""
        self.parts.close()  # workers that end in the middle of a save would interrupt it
        self.save(step)
        if step < self.run.max_steps:
            self.log.say(
                f"Stopped after step {step} of {self.run.max_steps}; the same command goes on from "
                f"there."
            )
        elif self.export:
            self._export("final")
            best = self._on_main(self.folder.best)
            if best and not best.name.endswith(f"{step:08d}"):
                self._on_main(lambda: state.verify(best))
                load_weights(self.model, state.load_state(best, "model"))
                self._export("best")
        self.log.close()
        return step

    def _export(self, name: str) -> None:
        with self._whole():
            self._on_main(lambda: self.export(self.model, self.folder.path / name) and None)

    def _shard(self, module: JointStep) -> nn.Module:
        """FSDP by torch itself (accelerate's does not run on CPUs, where it can be tested). Scalars
        cannot be sharded."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        module = self.accelerator.prepare_model(
            module, evaluation_mode=True
        )  # device and precision, no wrapper
        mesh = init_device_mesh(self.accelerator.device.type, (self.world,))
        return fully_shard(module, mesh=mesh, ignored_params=_scalars(module))

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """The model with all of its weights on every process."""
        if not self.sharded:
            yield
            return
        self.module.unshard()
        try:
            yield
        finally:
            self.module.reshard()

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.interval.setdefault(name, []).append(value)

    def _count_bad(self, problems: list[str], step: int) -> None:
        self.bad_samples += len(problems)
        for problem in problems:
            self.log.say(f"Unreadable sample replaced: {problem}")
        self.log.event("bad_samples", step, count=self.bad_samples, problems=problems)
        seen = max(BAD_SAMPLE_BASE, sum(self.data.samples_read(step + 1).values()))
        if self.bad_samples > self.run.max_bad_fraction * seen:
            raise TrainingError(
                f"{self.bad_samples} samples could not be read, more than "
                f"{self.run.max_bad_fraction:.1%} of those seen. Repair the data that the lines "
                "above name, or raise max_bad_fraction.",
                "train/data",
            )

    def _skip(
        self,
        values: dict[str, float],
        norm: float,
        sample_ids: list[dict[str, list[int]]],
        step: int,
    ) -> None:
        self.skipped += 1
        ids = gather_object([sample_ids])
        broken = [name for name, value in values.items() if not math.isfinite(value)] or [
            "gradient"
        ]
        self.log.event("skip", step, losses={**values, "grad_norm": norm}, sample_ids=ids)
        self.log.say(f"Step {step} skipped: {', '.join(broken)} not finite; samples {ids}")
        if self.skipped > MAX_SKIPPED:
            weights = [
                name
                for name, p in self.model.named_parameters()
                if not bool(full(p.detach()).isfinite().all())
            ]
            where = (
                f"weights already hold it: {', '.join(weights[:5])}"
                if weights
                else "all weights are finite"
            )
            raise TrainingError(
                f"{', '.join(broken)} not finite in step {step}, the {self.skipped}th in a row; "
                f"{where}. Its samples: {ids}. Lower optimizer.lr, use fp32, or look at these "
                "samples; the last checkpoint is good.",
                "train/nonfinite",
            )

    def _on_main(self, function: Callable[[], Any]) -> Any:
        """Runs `function` on the main process; every process gets its result or its error."""
        outcome = [None, None]
        if self.main:
            try:
                outcome[0] = function()
            except X2VLMError as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


def build_accelerator(run: RunConfig) -> Accelerator:
    """Devices and precision; the processes themselves are started by `accelerate launch` or
    `torchrun`."""
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not run.deterministic
    # Its successor is not known to the older versions of torch that we support.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    torch.set_float32_matmul_precision("highest" if run.deterministic else "high")
    return Accelerator(
        cpu=run.device == "cpu" or not torch.cuda.is_available(),
        mixed_precision="bf16" if run.precision == "bf16" else "no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            ),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def freeze(model: nn.Module, prefixes: list[str]) -> None:
    """Takes parameters out of training by the beginning of their names.

    Raises:
        ConfigError: no parameter begins so (`config/value`).
    """
    for prefix in prefixes:
        frozen = [
            parameter for name, parameter in model.named_parameters() if name.startswith(prefix)
        ]
        if not frozen:
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"model.freeze: no parameter begins with {prefix!r}. The model's parts: {parts}.",
                "config/value",
            )
        for parameter in frozen:
            parameter.requires_grad_(False)


def explicit_attention(model: nn.Module) -> None:
    """Makes timm's attention layers plain products, whose backward pass is faster on a CPU than
    that of the fused kernel."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def seed_step(*numbers: int) -> None:
    """Random numbers of a forward pass (dropout, hard negatives) depend on nothing but seed, step,
    part and process."""
    torch_seed, numpy_seed = np.random.SeedSequence(numbers).generate_state(2)
    torch.manual_seed(int(torch_seed))
    np.random.seed(int(numpy_seed))
    random.seed(int(numpy_seed))


def full(tensor: Tensor) -> Tensor:
    """The whole tensor where a process holds a shard of it (FSDP)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` on the device of `parameter`, and sharded as it is."""
    tensor = tensor.to(parameter.device)
    if not hasattr(parameter, "full_tensor") or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def weights(model: nn.Module, main: bool = True) -> dict[str, Tensor]:
    """The model's whole state dict on the CPU; on processes that only have to hand over their
    shards, {}."""
    whole = ((name, full(tensor.detach())) for name, tensor in model.state_dict().items())
    return {name: tensor.cpu() for name, tensor in whole if main}


def load_weights(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Inverse of `weights`. Raises `CheckpointError` (`ckpt/keys`) for another model's weights."""
    own = model.state_dict()
    shapes = [
        {(name, tensor.shape) for name, tensor in tensors.items()} for tensors in (own, saved)
    ]
    wrong = {name for name, _ in shapes[0] ^ shapes[1]}
    if wrong:
        raise CheckpointError(
            f"The checkpoint is of another model: {len(wrong)} tensors differ, for example "
            f"{min(wrong)}.",
            "ckpt/keys",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(like(saved[name], tensor))


def moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, main: bool = True
) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by parameter name, as `weights`; learning rates are no part of it, the
    configuration has them."""
    named = (
        (name, optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state
    )
    whole = ((name, {key: full(value) for key, value in values.items()}) for name, values in named)
    return {
        name: {key: value.cpu() for key, value in values.items()} for name, values in whole if main
    }


def load_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, dict[str, Tensor]]
) -> None:
    """Inverse of `moments`; parameters that were never trained have none."""
    for name, parameter in model.named_parameters():
        if name in saved:
            optimizer.state[parameter] = {
                key: like(value, parameter) for key, value in saved[name].items()
            }


def _scalars(module: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in module.parameters() if parameter.ndim == 0}


def _shapes(batch: Any) -> Iterator[torch.Size]:
    if isinstance(batch, dict):
        for value in batch.values():
            yield from _shapes(value)
    elif isinstance(batch, Tensor):
        yield batch.shape
