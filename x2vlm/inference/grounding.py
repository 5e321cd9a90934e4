"""Boxes, match probabilities and heat of phrases on encoded images, all from one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from x2vlm.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from x2vlm.checks import Cancel, check_cancel
from x2vlm.inference.batch import padded
from x2vlm.inference.explain import agreement
from x2vlm.inference.explanations import explain_phrases, lay_out
from x2vlm.inference.matching import TEXTS_AT_ONCE, encode_texts, match_probability
from x2vlm.inference.models import Member
from x2vlm.inference.phrases import split_phrases
from x2vlm.inference.scene import Scene
from x2vlm.processing import TokenizedText
from x2vlm.results import Explanation, Grounding, Match, Verdict


@dataclass(frozen=True)
class FoundPhrase:
    """What the model says of one phrase.

    Attributes:
        box: float[4], (x1, y1, x2, y2) as fractions, as predicted: it may reach over the edge.
        match: match probability, None without a matching head.
    """

    phrase: TokenizedText
    box: Tensor
    match: float | None
    explanation: Explanation | None


def find_phrases(
    member: Member,
    image_embeds: Tensor,
    phrases: Sequence[Sequence[str]],
    explain: bool,
    judge: Callable[[list[list[str]]], Sequence[Sequence[Match]]] | None,
    cancel: Cancel | None,
) -> list[list[FoundPhrase]]:
    """Every phrase of every image in its order, a few at a time.

    Args:
        image_embeds: float[B, P, D].
        phrases: of each of the B images, at least one.
        explain: also make the heat map of each phrase, by what the settings choose for it.
        judge: matches texts in place of a matching head that the model lacks.
    """
    tokens = [[member.processor.tokenize(p, field="phrase") for p in one] for one in phrases]
    found: list[list[FoundPhrase]] = [[] for _ in tokens]
    for start in range(0, max(map(len, tokens)), TEXTS_AT_ONCE):
        check_cancel(cancel)
        part = [one[start : start + TEXTS_AT_ONCE] for one in tokens]
        owners = [i for i, one in enumerate(part) if one]
        part = [part[i] for i in owners]
        for i, some in zip(owners, _find_at_once(member, image_embeds[owners], part, explain)):
            found[i] += some
    if judge is None or "matching" in member.model.config.heads:
        return found
    matches = judge([[one.phrase.text for one in some] for some in found])
    return [
        [replace(one, match=match.probability) for one, match in zip(some, own, strict=True)]
        for some, own in zip(found, matches, strict=True)
    ]


def _find_at_once(
    member: Member, image_embeds: Tensor, phrases: list[list[TokenizedText]], explain: bool
) -> list[list[FoundPhrase]]:
    model, matching = member.model, "matching" in member.model.config.heads
    read = [None] * len(phrases)
    if not explain or "dense_box" in model.config.heads:
        with torch.no_grad():
            text_embeds, mask = encode_texts(member, padded(phrases))
        read = text_embeds.float().split(len(text_embeds) // len(phrases))
    if explain:
        maps = member.settings.maps
        whole = maps.phrase if matching else replace(maps.phrase, target="box")
        part = maps.query if maps.query.target == "phrase" else whole
        batches = [
            lay_out(member, one, [split_phrases(text.text, text.words) for text in one])
            for one in phrases
        ]
        explained = explain_phrases(member, image_embeds, batches, whole, part)
    else:
        with torch.no_grad():
            fused = model.fuse(text_embeds, mask, image_embeds)[:, :1]
        rows = fused.split(len(fused) // len(phrases))
        explained = [([None] * len(one), own) for one, own in zip(phrases, rows, strict=True)]
    found = []
    seen = image_embeds.float().split(1)
    for texts, image, own, (explanations, fused) in zip(
        phrases, seen, read, explained, strict=True
    ):
        with torch.no_grad():
            boxes = cxcywh_to_xyxy(model.locate(image, own, fused.float()).cpu())[: len(texts)]
            fused = fused[: len(texts)]
            matches = match_probability(member, fused).tolist() if matching else [None] * len(texts)
        each = zip(texts, boxes, matches, explanations, strict=True)
        found.append([FoundPhrase(*one) for one in each])
    return found


def make_grounding(
    found: FoundPhrase, scene: Scene, thresholds: tuple[float, float], frame: int
) -> Grounding:
    """The box cut to the image and put into the user's pixels, with the verdict.

    Args:
        thresholds: match probabilities (absent, present).
        frame: position of the frame, named for videos only.
    """
    width, height = scene.size
    box = found.box.clamp(0, 1)
    x1, y1, x2, y2 = box.tolist()
    heat = found.explanation
    return Grounding(
        phrase=found.phrase.text,
        box_xyxy=(x1 * width, y1 * height, x2 * width, y2 * height),
        box_cxcywh=tuple(xyxy_to_cxcywh(box).tolist()),
        match=found.match,
        verdict=verdict(found.match, thresholds),
        explanation=heat,
        agreement=None if heat is None else agreement(heat.overall, (x1, y1, x2, y2)),
        frame=frame if scene.kind == "video" else None,
        truncated_at=found.phrase.truncated_at,
    )


def verdict(match: float | None, thresholds: tuple[float, float]) -> Verdict | None:
    """`absent` below the first threshold, `found` from the second on, `unsure` between; None
    without a match probability."""
    if match is None:
        return None
    absent, present = thresholds
    return "absent" if match < absent else "found" if match >= present else "unsure"
