"""Does a map show what matters? Take away or put in its hottest patches and watch the match,
against random patches (deletion and insertion: Petsiuk et al., arXiv 1806.07421).

A patch that is away is blurred or the image's mean colour, not grey: what a model never saw in
training lets every match collapse, for hot and random patches alike.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from x2vlm.checks import Cancel, Progress, check_cancel, report
from x2vlm.errors import ParameterError
from x2vlm.inference.matching import match_scores
from x2vlm.inference.models import Member
from x2vlm.inference.scene import FRAMES_AT_ONCE, Scene
from x2vlm.options import DeletionOptions
from x2vlm.results import DeletionCheck, Explanation

EARLY = 0.2
"""Share of the patches within which a random order may not have done half of all that it does."""
SPREADS = 1.0
LEAST_AREA = 0.02
"""An area counts from so many standard deviations of the random ones on, and from this size."""


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
    if map2d.shape != grid:
        raise ParameterError(
            f"The map is not on this model's {grid[0]} x {grid[1]} patches. Explain again.",
            "param/range",
        )
    text = member.processor.tokenize(explanation.text)
    visual = member.processor.images(scene.frames).to(member.device, member.dtype)
    visual = visual if scene.kind == "video" else visual[0]
    blank = blank_image(visual, options.fill)
    full, empty = (visual, blank) if options.mode == "deletion" else (blank, visual)
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
                exchange_patches(full, empty, order[:count], grid)
                for order in orders[start : start + at_once]
            ]
            embeds = _encode(member, torch.stack(part))
            matches += match_scores(member, embeds, [text] * len(part))[0]
        curves.append(matches)
        report(progress, (step + 1) / (steps + 1), "Exchanging patches")
    by_heat, random = np.array(curves)[:, 0], np.array(curves)[:, 1:]
    sign = 1 if options.mode == "deletion" else -1
    areas = sign * (random.mean(0) - by_heat.mean())
    return DeletionCheck(
        fractions=tuple(step / steps for step in range(steps + 1)),
        by_heat=tuple(by_heat.tolist()),
        by_chance=tuple(random.mean(1).tolist()),
        faithfulness=float(areas.mean()),
        chance_low=tuple(random.min(1).tolist()),
        chance_high=tuple(random.max(1).tolist()),
        mode=options.mode,
        fill=options.fill,
        verdict=_verdict(areas, random.mean(1)),
    )


def _verdict(areas: np.ndarray, by_chance: np.ndarray) -> str:
    """What the areas between the map's curve and each random one, float[draws], allow to say."""
    early = by_chance[: math.ceil(len(by_chance) * EARLY) + 1]
    change = abs(by_chance[-1] - by_chance[0])
    collapsed = change > 0 and abs(early[-1] - by_chance[0]) > change / 2
    if areas.mean() > SPREADS * areas.std() and areas.mean() > LEAST_AREA:
        return "faithful"
    if collapsed or abs(areas.mean()) <= max(SPREADS * areas.std(), LEAST_AREA):
        return "cannot tell"
    return "not faithful"


def _encode(member: Member, visuals: Tensor) -> Tensor:
    """Pictures float[N, 3, H, W] or videos float[N, F, 3, H, W] to float[N, P, D], a few frames at
    a time."""
    parts = visuals.flatten(0, -4).split(FRAMES_AT_ONCE)
    embeds = torch.cat([member.model.encode_image(part) for part in parts])
    if visuals.ndim == 4:
        return embeds
    return member.model.pool_frames(embeds.unflatten(0, visuals.shape[:2]))


def blank_image(visual: Tensor, fill: str) -> Tensor:
    """A normalised image or video float[..., 3, H, W] with nothing left in it to see: blurred until
    16 colours remain, or the mean colour."""
    frames = visual.flatten(0, -4) if visual.ndim > 3 else visual[None]
    small = nn.functional.adaptive_avg_pool2d(frames, 4 if fill == "blur" else 1)
    size = visual.shape[-2:]
    return nn.functional.interpolate(small, size, mode="bilinear").view_as(visual)


def exchange_patches(
    visual: Tensor, other: Tensor, patches: np.ndarray, grid_size: tuple[int, int]
) -> Tensor:
    """A normalised image or video float[..., H, W] with the given patches of its (rows, columns)
    from another of its size."""
    keep = torch.ones(math.prod(grid_size), device=visual.device, dtype=visual.dtype)
    keep[torch.from_numpy(patches)] = 0
    size = visual.shape[-1] // grid_size[1]
    keep = keep.view(grid_size)
    keep = keep.repeat_interleave(size, 0).repeat_interleave(size, 1)
    return visual * keep + other * (1 - keep)
