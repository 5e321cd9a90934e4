"""Does a map show what matters? Grey its hottest patches and watch the match fall, against random
patches (deletion check)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from x2vlm.checks import Cancel, Progress, check_cancel, report
from x2vlm.errors import ParameterError
from x2vlm.inference.matching import match_scores
from x2vlm.inference.models import Member
from x2vlm.inference.scene import FRAMES_AT_ONCE, Scene
from x2vlm.modeling.video import pool_frames
from x2vlm.options import DeletionOptions
from x2vlm.results import DeletionCheck, Explanation


@torch.no_grad()
def check_deletion(
    member: Member,
    scene: Scene,
    explanation: Explanation,
    options: DeletionOptions,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> DeletionCheck:
    """Match probabilities of an explained text while patches disappear.

    Raises:
        ParameterError: the map is not on the model's patch grid (`param/range`).
    """
    map2d, grid = explanation.overall, member.model.config.vision.grid_size
    if map2d.shape != (grid, grid):
        raise ParameterError(
            f"The map is not on this model's {grid} x {grid} patches. Explain again.",
            "param/range",
        )
    text = member.processor.tokenize(explanation.text)
    visual = member.processor.images(scene.frames).to(member.device, member.dtype)
    visual = visual if scene.kind == "video" else visual[0]
    rng, steps = np.random.default_rng(options.seed), options.steps
    orders = [
        np.argsort(-map2d.flatten(), kind="stable"),
        *(rng.permutation(map2d.size) for _ in range(options.draws)),
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
            embeds = _encode(member, torch.stack(part))
            matches += match_scores(member, embeds, [text] * len(part))[0]
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
