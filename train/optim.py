"""AdamW with X²-VLM's parameter groups, and the linear schedule (official `optim.py` and `scheduler.py`).

Departures: torch's AdamW (eps is not scaled by the bias correction, decay comes before the update: differences in the last
digits); the schedule ends at `min_lr` exactly, where the official one ends slightly above it; which parameters are new is
given by name, so wrapping the model cannot lose it (the official slip that drops `lr_mult` under DDP).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from train.config import OptimizerConfig

DECAYED_NORMS = ("matching_head.", "box_head.", "pair_head.", "classification_head.")
"""LayerNorms whose weights do decay: the official rule looks for the words of BERT and ViT, which these heads lack."""


def no_decay_names(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: biases (relative-position tables too) and the LayerNorms of the encoders.

    Temperature, class token, LayerScale, embeddings and the LayerNorm weights of the output heads decay, as officially.
    """
    names = {name for name, _ in model.named_parameters() if "bias" in name.rpartition(".")[2]}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not prefix.startswith(DECAYED_NORMS):
            names.add(f"{prefix}.weight")
    return names


def build_optimizer(model: nn.Module, config: OptimizerConfig, new_parameters: Collection[str] = ()) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in groups by weight decay and learning rate; `base_lr` of a group is its peak.

    Args:
        new_parameters: names that were initialised afresh; they learn `lr_mult` times faster.
    """
    no_decay = no_decay_names(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in no_decay else config.weight_decay
            groups.setdefault((_peak_lr(name, config, new_parameters), decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "base_lr": lr, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()],
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def _peak_lr(name: str, config: OptimizerConfig, new_parameters: Collection[str]) -> float:
    """Learning rate of a parameter; the split rates come first, so new weights inside the towers keep theirs."""
    cross_lr = config.cross_lr or config.text_lr
    parts = {"vision.": config.vision_lr, "text_encoder.": config.text_lr, "fusion_encoder.": cross_lr}
    for prefix, lr in parts.items():
        if name.startswith(prefix) and lr is not None:
            return lr
    return config.lr * (config.lr_mult if name in new_parameters else 1.0)


def lr_factor(step: int, max_steps: int, warmup: int | float, min_factor: float = 0.0) -> float:
    """Factor of the peak learning rate at `step` (the first is 0): linear up from 0, linear down to `min_factor`.

    Args:
        warmup: steps, or a fraction of `max_steps` when below 1.
    """
    warmup_steps = int(warmup if warmup >= 1 else warmup * max_steps)
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return max(min_factor, 1 - (1 - min_factor) * progress)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
