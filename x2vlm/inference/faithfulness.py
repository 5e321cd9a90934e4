"""Does a map show what matters? Grey its hottest patches and watch the match fall, against random
patches (deletion check)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from x2vlm.checks import Cancel, Progress, check_cancel, report
from x2vlm.inference.grounding import match_texts
from x2vlm.inference.models import Member
from x2vlm.inference.scene import FRAMES_AT_ONCE
from x2vlm.modeling.video import pool_frames
from x2vlm.processing import TokenizedText
from x2vlm.results import DeletionCheck


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
        visual: a normalised image float[3, H, W] or video float[F, 3, H, W].
        map2d: float (G, G).
        draws: random orders, of which the mean is taken.
    """
    rng = np.random.default_rng(seed)
    orders = [
        np.argsort(-map2d.flatten(), kind="stable"),
        *(rng.permutation(map2d.size) for _ in range(draws)),
    ]
    at_once = FRAMES_AT_ONCE if visual.ndim == 3 else max(1, FRAMES_AT_ONCE // len(visual))
    curves = []
    for step in range(steps + 1):
        count, matches = round(step / steps * map2d.size), []
        for start in range(0, len(orders), at_once):
            check_cancel(cancel)
            part = [
                delete_patches(visual, order[:count], len(map2d))
                for order in orders[start : start + at_once]
            ]
            matches += match_texts(member, _encode(member, torch.stack(part)), [text] * len(part))[
                0
            ]
        curves.append(matches)
        report(progress, (step + 1) / (steps + 1), "Greying patches")
    by_heat, *by_chance = np.array(curves).T
    by_chance = np.mean(by_chance, axis=0)
    return DeletionCheck(
        fractions=tuple(step / steps for step in range(steps + 1)),
        by_heat=tuple(by_heat.tolist()),
        by_chance=tuple(by_chance.tolist()),
        faithfulness=float(by_chance.mean() - by_heat.mean()),
    )


def _encode(member: Member, visuals: Tensor) -> Tensor:
    """Pictures float[N, 3, H, W] or videos float[N, F, 3, H, W] to float[N, P, D], a few frames at
    a time."""
    parts = visuals.flatten(0, -4).split(FRAMES_AT_ONCE)
    embeds = torch.cat([member.model.encode_image(part) for part in parts])
    if visuals.ndim == 4:
        return embeds
    return pool_frames(embeds.unflatten(0, visuals.shape[:2]), member.model.frame_positions)


def delete_patches(visual: Tensor, patches: np.ndarray, grid_size: int) -> Tensor:
    """A normalised image or video float[..., H, W] with the given patches grey (the mean
    colour)."""
    keep = torch.ones(grid_size * grid_size, device=visual.device, dtype=visual.dtype)
    keep[torch.from_numpy(patches)] = 0
    size = visual.shape[-1] // grid_size
    return visual * keep.view(grid_size, grid_size).repeat_interleave(size, 0).repeat_interleave(
        size, 1
    )
