"""Does a map show what matters? Grey its hottest patches and watch the match fall, against random patches (deletion check)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from x2vlm.checks import Cancel, Progress, check_cancel, report
from x2vlm.grounding import match_texts
from x2vlm.processing import TokenizedText
from x2vlm.results import DeletionCheck
from x2vlm.suite import Member


@torch.no_grad()
def check_deletion(
    member: Member,
    visual: Tensor,
    text: TokenizedText,
    map2d: np.ndarray,
    steps: int,
    draws: int,
    seed: int,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> DeletionCheck:
    """Match probabilities while patches disappear.

    Args:
        visual: a normalised picture float[3, H, W] or clip float[F, 3, H, W].
        map2d: float (G, G).
        draws: random orders, of which the mean is taken.
    """
    rng = np.random.default_rng(seed)
    orders = [np.argsort(-map2d.flatten(), kind="stable"), *(rng.permutation(map2d.size) for _ in range(draws))]
    curves = []
    for step in range(steps + 1):
        check_cancel(cancel)
        count = round(step / steps * map2d.size)
        variants = torch.stack([delete_patches(visual, order[:count], len(map2d)) for order in orders])
        embeds = member.model.encode_visual(variants)
        curves.append(match_texts(member, embeds, [text] * len(orders))[0])
        report(progress, (step + 1) / (steps + 1), "Greying patches")
    by_heat, *by_chance = np.array(curves).T
    by_chance = np.mean(by_chance, axis=0)
    return DeletionCheck(
        fractions=tuple(step / steps for step in range(steps + 1)),
        by_heat=tuple(by_heat.tolist()),
        by_chance=tuple(by_chance.tolist()),
        faithfulness=float(by_chance.mean() - by_heat.mean()),
    )


def delete_patches(visual: Tensor, patches: np.ndarray, grid_size: int) -> Tensor:
    """A normalised picture or clip float[..., H, W] with the given patches grey (the mean colour)."""
    keep = torch.ones(grid_size * grid_size, device=visual.device, dtype=visual.dtype)
    keep[torch.from_numpy(patches)] = 0
    size = visual.shape[-1] // grid_size
    return visual * keep.view(grid_size, grid_size).repeat_interleave(size, 0).repeat_interleave(size, 1)
