"""The typed configuration of a run: one YAML file plus `--a.b=c` overrides, checked completely
before anything loads.

`train.typed` builds the dataclasses; jsonargparse writes the help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from train.strict_yaml import parse_yaml, read_yaml
from train.tasks import task_class
from train.tasks.base import Task
from train.typed import build
from x2vlm.errors import ConfigError


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters in the place of the weights of the layers, see `train.lora`.

    Attributes:
        rank: columns of an adapter; 8 to 64 are usual.
        alpha: an adapter counts `alpha / rank` times.
        linears: parts of the names of the linear layers that get an adapter.
    """

    rank: int = 16
    alpha: float = 32.0
    linears: list[str] = field(default_factory=lambda: [".blocks.", ".layers."])

    def __post_init__(self):
        _require(self.rank >= 1, "model.lora.rank", self.rank, "a whole number, 1 or more")
        good = math.isfinite(self.alpha) and self.alpha > 0
        _require(good, "model.lora.alpha", self.alpha, "a finite number above 0")


@dataclass(kw_only=True)
class ModelSource:
    """Which model is trained.

    Attributes:
        preset: a name of `x2vlm.presets.PRESETS`, built with fresh weights.
        overrides: changed keys of that preset, nested as in `X2VLMConfig`, for example `{vision:
            {image_size: 128}}`.
        init_from: checkpoint folder, file or known name; its weights are loaded (into `preset`, or
            into its own shape).
        vision_from, text_from, fusion_from, x2vlm_from: published parts that fill a `preset`, for
            example BEiT-2 and BERT, by name or local file (see `x2vlm.checkpoint.initialize`); what
            they lack learns `optimizer.lr_mult` times faster. Beside `x2vlm_from`, `text_from`
            swaps the text encoder for that of another language; it may be a checkpoint of ours.
        embeddings_only: that swap keeps the layers of the text encoder.
        lora: low-rank adapters instead of the layers' weights; None for none.
        tokenizer: folder of the tokenizer; empty for the one beside the weights.
        freeze: parameters whose names start with one of these words do not train, for example
            `vision.`.
    """

    preset: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    init_from: str = ""
    vision_from: str = ""
    text_from: str = ""
    fusion_from: str = ""
    x2vlm_from: str = ""
    embeddings_only: bool = False
    lora: LoraConfig | None = None
    tokenizer: str = ""
    freeze: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule (see `train.optim`).

    Attributes:
        lr: peak learning rate.
        min_lr: learning rate of the last step.
        warmup: steps of linear warm-up from 0; below 1 a fraction of `max_steps`.
        lr_mult: factor of `lr` for newly initialised parameters.
        vision_lr, text_lr, cross_lr: learning rates of the image tower, text encoder and fusion
            layers (default `text_lr`).
        clip: largest global norm of the gradient, None for no clipping.
        muon: the matrices of the transformer layers learn by Muon, meant for training from scratch;
            a step takes longer.
    """

    lr: float
    min_lr: float = 0.0
    warmup: int | float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01
    lr_mult: float = 2.0
    vision_lr: float | None = None
    text_lr: float | None = None
    cross_lr: float | None = None
    clip: float | None = 1.0
    muon: bool = False

    def __post_init__(self):
        for name in ("lr", "vision_lr", "text_lr", "cross_lr", "eps", "clip", "lr_mult"):
            value = getattr(self, name)
            good = value is None or (math.isfinite(value) and value > 0)
            _require(good, f"optimizer.{name}", value, "a finite number above 0")
        for name in ("min_lr", "warmup", "weight_decay"):
            value = getattr(self, name)
            good = math.isfinite(value) and value >= 0
            _require(good, f"optimizer.{name}", value, "a finite number, 0 or more")
        good = all(0 <= beta < 1 for beta in self.betas)
        _require(good, "optimizer.betas", self.betas, "two numbers in [0, 1)")
        good = self.vision_lr is None or self.text_lr is not None
        _require(good, "optimizer.text_lr", None, "given beside vision_lr")


@dataclass(kw_only=True)
class LogConfig:
    """A log every `every` steps.

    Attributes:
        trackers: where the numbers go besides `log.jsonl`; accelerate writes them.
        project: name of the project at a tracker that has projects.
    """

    every: int = 10
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = field(
        default_factory=lambda: ["tensorboard"]
    )
    project: str = "x2vlm"


@dataclass(kw_only=True)
class EvaluateConfig:
    """Evaluation during the run: every `every` steps (0: only after the last) by each task's
    `evaluate`.

    Attributes:
        metric: `task/metric` that decides which checkpoint is the best; empty for none.
        goal: whether more (`max`) or less (`min`) of it is better.
        patience: the run ends early after so many evaluations without a better one; 0 for never.
    """

    every: int = 0
    metric: str = ""
    patience: int = 0
    goal: Literal["max", "min"] = "max"


@dataclass(kw_only=True)
class CheckpointConfig:
    """A checkpoint every `every` steps; the newest `keep` and the best stay on disk."""

    every: int = 1000
    keep: int = 2


@dataclass(kw_only=True)
class ResumeConfig:
    """Whether the run goes on from the newest good checkpoint of its folder.

    Attributes:
        allow_changed: settings that may differ from those of the checkpoint, separated by commas;
            `all` for any.
    """

    enabled: bool = True
    allow_changed: str = ""


@dataclass(kw_only=True)
class RunConfig:
    """Everything about a run.

    Attributes:
        output_dir: folder for checkpoints, logs and the final weights.
        max_steps: optimiser steps; 0 where `epochs` are given instead.
        epochs: passes over the largest of the data that are trained on.
        tasks: blocks of settings by a name of one's own; `type` names the task, the rest are fields
            of its class.
        precision: `bf16` is autocast over fp32 weights; so is `fp16`, with a scaled loss, for GPUs
            that lack bf16.
        accumulation: parts in which a step's batch goes through the model one after the other; each
            is a batch of its own to contrastive losses, hard negatives and means over tokens or
            boxes.
        gradient_cache: contrastive losses see the pairs of all parts of a step: features are
            computed once more, without a graph, before the first part.
        gradient_checkpointing: layers are computed again in the backward pass instead of kept:
            less memory, about a third more time.
        compile: layers are compiled by torch: a minute at the start, faster steps on a GPU.
        parallel: how several processes (started by `accelerate launch` or `torchrun`) share the
            work. `fsdp` shards weights, gradients and moments between the passes; for a pass every
            process holds all weights.
        num_workers: processes that load data, for each training process.
        deterministic: bitwise repeatable on a GPU too, at a price in speed.
        stop_after_minutes: save and end after so long; the same command goes on later.
        max_bad_fraction: the run stops when more than this part of the samples cannot be read.
    """

    output_dir: str
    tasks: dict[str, dict[str, Any]]
    optimizer: OptimizerConfig
    max_steps: int = 0
    epochs: float = 0
    model: ModelSource = field(default_factory=ModelSource)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulation: int = 1
    gradient_cache: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 42
    num_workers: int = 2
    deterministic: bool = False
    stop_after_minutes: float | None = None
    max_bad_fraction: float = 0.01
    log: LogConfig = field(default_factory=LogConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)

    def __post_init__(self):
        for key, value, least in (
            ("max_steps", self.max_steps, 0),
            ("accumulation", self.accumulation, 1),
            ("num_workers", self.num_workers, 0),
            ("seed", self.seed, 0),
            ("log.every", self.log.every, 1),
            ("checkpoint.every", self.checkpoint.every, 1),
            ("checkpoint.keep", self.checkpoint.keep, 1),
            ("evaluate.every", self.evaluate.every, 0),
            ("evaluate.patience", self.evaluate.patience, 0),
        ):
            _require(value >= least, key, value, f"a whole number, {least} or more")
        good = math.isfinite(self.epochs) and (self.max_steps > 0) != (self.epochs > 0)
        _require(good, "max_steps", self.max_steps, "above 0, or 0 beside `epochs` above 0")
        good = not self.evaluate.patience or (self.evaluate.every and self.evaluate.metric)
        _require(good, "evaluate.patience", self.evaluate.patience, "beside `every` and `metric`")
        _require(bool(self.tasks), "tasks", self.tasks, "at least one task")
        metric = self.evaluate.metric
        good = not metric or metric.partition("/")[0] in self.tasks
        _require(good, "evaluate.metric", metric, "task/metric of one of the tasks")
        # Muon needs whole matrices and FSDP keeps shards of them.
        good = self.parallel == "ddp" or not self.optimizer.muon
        _require(good, "parallel", self.parallel, "ddp when optimizer.muon is on")
        good = self.parallel == "ddp" or self.precision != "fp16"
        _require(good, "parallel", self.parallel, "ddp when precision is fp16")
        good = self.parallel == "ddp" or not self.model.lora
        _require(good, "parallel", self.parallel, "ddp when model.lora is on")
        good = self.accumulation > 1 or not self.gradient_cache
        _require(good, "accumulation", self.accumulation, "2 or more beside gradient_cache")

    def build_tasks(self) -> dict[str, Task]:
        """The tasks of the run, checked but not prepared."""
        return {name: build_task(name, values) for name, values in self.tasks.items()}


def load_run(arguments: list[str], **defaults: Any) -> tuple[RunConfig, dict[str, Task]]:
    """Reads `--config FILE --a.b=c ...` into a run and its tasks.

    Args:
        arguments: the command line without the program's name; overrides win over the file.
        defaults: values of top-level keys that the file may replace, block by block.

    Raises:
        ConfigError: the file, a key or a value cannot be used.
    """
    options = _split_options(arguments)
    values: dict[str, Any] = {}
    for layer in (defaults, *(read_yaml(Path(path)) for key, path in options if key == "config")):
        values = _merge(values, layer)
    for key, text in options:
        if key != "config":
            _override(values, key, parse_yaml(text, f"--{key}"))
    run = build(RunConfig, values)
    return run, run.build_tasks()


def usage() -> str:
    """Every key of a run with its type, default and meaning."""
    parser = ArgumentParser(prog="python -m train.pretrain --config FILE", add_help=False)
    parser.add_class_arguments(RunConfig)
    return parser.format_help()


def build_task(name: str, values: dict[str, Any]) -> Task:
    """The task of one block of `tasks`. Raises `ConfigError`."""
    where = f"tasks.{name}"
    if "type" not in values:
        raise ConfigError(f"{where} has no key 'type', which says what task it is.", "config/key")
    try:
        return build(
            task_class(values["type"]),
            {key: value for key, value in values.items() if key != "type"},
            where,
        )
    except ConfigError as error:
        if where in error.message:
            raise
        raise ConfigError(f"{where}: {error.message}", "config/value") from error


def _split_options(arguments: list[str]) -> list[tuple[str, str]]:
    """`--a.b=c` and `--a.b c` as pairs."""
    options, rest = [], list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(f"{option!r} is not an option; write --key=value.", "config/key")
        key, equals, value = option[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"--{key} has no value; write --{key}=value.", "config/value")
            value = rest.pop(0)
        options.append((key, value))
    return options


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--{key}: {part!r} is a value, not a block of keys.", "config/key")
    values[last] = value


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(low[key], high[key])
        for key in low.keys() & high.keys()
        if isinstance(high[key], dict)
    }
    return {**low, **high, **both}


def _require(good: bool, key: str, value: Any, wanted: str) -> None:
    if not good:
        raise ConfigError(f"{key} is {value!r}; it must be {wanted}.", "config/value")
