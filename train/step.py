"""What one training step runs: every task's losses in one forward pass, and their weighted sum.

The official code needs two backward passes when video takes part. Here every active task goes
through one forward of one module and the weighted sum gets one backward, so that
DistributedDataParallel sees one forward and one backward whatever the mixture.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.tasks.base import Task
from x2vlm.errors import ConfigError


class JointStep(nn.Module):
    """The model with its tasks. Losses are named `task/loss`."""

    def __init__(self, model: nn.Module, tasks: dict[str, Task]):
        super().__init__()
        self.model = model
        self.tasks = tasks
        self.weights = {
            f"{name}/{loss}": weight
            for name, task in tasks.items()
            for loss, weight in task.loss_weights.items()
        }

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """Batches by task name to the unweighted scalar losses that are on."""
        losses = {}
        for name, batch in batches.items():
            given = self.tasks[name].training_step(self.model, batch)
            losses |= {f"{name}/{loss}": given[loss] for loss in self.tasks[name].loss_weights}
        return losses

    def contrast(self, batches: dict[str, Any]) -> None:
        """Computes nothing but the contrastive losses, for a gradient cache."""
        for name, batch in batches.items():
            task = copy.copy(self.tasks[name])
            task.losses = {
                loss: weight
                for loss, weight in task.loss_weights.items()
                if loss.endswith("contrastive_loss")
            }
            if task.losses:
                task.training_step(self.model, batch)

    def weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        """The scalar that is learnt from. Weights apply here and nowhere else."""
        return sum(self.weights[name] * loss for name, loss in losses.items())


def describe_share(name: str, task: Task, samples: int, world: int, accumulation: int) -> str:
    """What a task takes part with, as a run announces it; `samples`: those of the whole run."""
    part = task.batch_size // (world * accumulation)
    losses = ", ".join(f"{loss} x {w:g}" for loss, w in task.loss_weights.items())
    return (
        f"  {name}: {task.batch_size} a step = {world} processes x {accumulation} parts x {part}; "
        f"{len(task):,} samples, {samples / len(task):.1f} epochs; "
        f"{losses or 'no losses, measures only'}"
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


def transformer_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of every tower and encoder."""
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and name.rpartition(".")[2] in ("blocks", "layers"):
            yield from layers


def checkpoint_layers(model: nn.Module) -> None:
    """Gradient checkpointing: the backward pass computes every transformer layer again instead of
    keeping what is inside it; losses and gradients stay the same."""
    for layer in transformer_layers(model):
        layer.forward = partial(_recomputed, layer.forward)


def compile_layers(model: nn.Module) -> None:
    """Compiles every transformer layer; layers of one form share what is compiled."""
    for layer in transformer_layers(model):
        layer.compile()


def _recomputed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False, **options)
    return forward(*inputs, **options)


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
