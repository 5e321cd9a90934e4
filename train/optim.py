"""AdamW with X²-VLM's parameter groups, and the linear schedule (official `optim.py` and
`scheduler.py`); Muon on request.

Departures: torch's AdamW (eps is not scaled by the bias correction, decay comes before the update:
differences in the last digits); the schedule ends at `min_lr` exactly, where the official one ends
slightly above it; which parameters are new is given by name, so wrapping the model cannot lose it
(the official slip that drops `lr_mult` under DDP).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.config import OptimizerConfig

DECAYED_NORMS = ("matching_head.", "box_head.", "pair_head.", "classification_head.")
"""LayerNorms whose weights do decay: the official rule looks for the words of BERT and ViT, which
these heads lack."""


def no_decay_names(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: biases (relative-position tables too) and the
    LayerNorms of the encoders.

    Temperature, class token, LayerScale, embeddings and the LayerNorm weights of the output heads
    decay, as officially.
    """
    names = {name for name, _ in model.named_parameters() if "bias" in name.rpartition(".")[2]}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not prefix.startswith(DECAYED_NORMS):
            names.add(f"{prefix}.weight")
    return names


HIDDEN = (".blocks.", ".layers.")
"""Parts of the names of the transformer layers, whose matrices Muon may move; embeddings and heads
stay with AdamW."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that drives all singular values towards 1 in few steps (Jordan et
al., 2024, Muon)."""


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """About `U V^T` of the singular value decomposition `U S V^T` of a matrix (M, N), by
    Newton-Schulz iteration; in bf16."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW, except for the groups marked `muon`: matrices that move along their orthogonalised
    momentum.

    An update is scaled to the root mean square of AdamW's, so that both share a learning rate (Liu
    et al., arXiv 2502.16982). `torch.optim.Muon` takes the same steps (a test compares them); it is
    not used because there every process orthogonalises every matrix, and because it would stand
    beside AdamW as a second optimizer with a state of its own.
    """

    momentum = 0.95

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        moved = [
            (p, group)
            for group in groups
            if group["muon"]
            for p in group["params"]
            if p.grad is not None
        ]
        moved.sort(key=lambda move: move[0].numel())  # so that processes share them evenly
        directions = self._directions([matrix for matrix, _ in moved]) if moved else []
        for (matrix, group), direction in zip(moved, directions, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(direction, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _directions(self, matrices: list[Tensor]) -> list[Tensor]:
        """Orthogonalised momentum of each matrix, in bf16. All processes hold the same gradients
        and share the work."""
        several = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
        sizes = [matrix.numel() for matrix in matrices]
        found = torch.zeros(sum(sizes), dtype=torch.bfloat16, device=matrices[0].device)
        directions = [
            part.view_as(matrix) for part, matrix in zip(found.split(sizes), matrices, strict=True)
        ]
        for index, (matrix, direction) in enumerate(zip(matrices, directions, strict=True)):
            state = self.state[matrix]
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(matrix)
            momentum = state["exp_avg"].lerp_(matrix.grad, 1 - self.momentum)
            if index % world == rank:
                direction.copy_(orthogonalize(matrix.grad.lerp(momentum, self.momentum)))
        if world > 1:
            dist.all_reduce(found)
        return directions


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, new_parameters: Collection[str] = ()
) -> MuonAdamW:
    """The optimizer of the trainable parameters, in groups by weight decay and learning rate;
    `base_lr` is a group's peak.

    Args:
        new_parameters: names that were initialised afresh; they learn `lr_mult` times faster.
    """
    no_decay = no_decay_names(model)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in no_decay else config.weight_decay
            # BEiT's table of position biases is no layer.
            hidden = any(part in name for part in HIDDEN) and "bias" not in name
            muon = config.muon and parameter.ndim == 2 and hidden
            groups.setdefault((_peak_lr(name, config, new_parameters), decay, muon), []).append(
                parameter
            )
    return MuonAdamW(
        [
            {"params": params, "base_lr": lr, "lr": lr, "weight_decay": decay, "muon": muon}
            for (lr, decay, muon), params in groups.items()
        ],
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def _peak_lr(name: str, config: OptimizerConfig, new_parameters: Collection[str]) -> float:
    """Learning rate of a parameter; the split rates come first, so new weights inside the towers
    keep theirs."""
    cross_lr = config.cross_lr or config.text_lr
    parts = {
        "vision.": config.vision_lr,
        "text_encoder.": config.text_lr,
        "fusion_encoder.": cross_lr,
    }
    for prefix, lr in parts.items():
        if name.startswith(prefix) and lr is not None:
            return lr
    return config.lr * (config.lr_mult if name in new_parameters else 1.0)


def lr_factor(step: int, max_steps: int, warmup: int | float, min_factor: float = 0.0) -> float:
    """Factor of the peak learning rate at `step` (the first is 0): linear up from 0, linear down to
    `min_factor`.

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
