"""Boxes, match probabilities and heat of phrases on one encoded image, all from one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from x2vlm.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from x2vlm.checks import Cancel, check_cancel, check_texts
from x2vlm.inference.explain import agreement
from x2vlm.inference.explanations import explain_phrases, lay_out
from x2vlm.inference.matching import MAX_TEXTS, TEXTS_AT_ONCE, encode_texts, match_probability
from x2vlm.inference.models import Member
from x2vlm.inference.phrases import split_phrases
from x2vlm.processing import TokenizedText
from x2vlm.results import Explanation, Grounding, Match, Verdict


@dataclass(frozen=True)
class FoundPhrase:
    """What the model says of one phrase.

    Attributes:
        box: float[4], (x1, y1, x2, y2) as fractions, inside the image.
        match: match probability, None without a matching head.
    """

    phrase: TokenizedText
    box: Tensor
    match: float | None
    explanation: Explanation | None


def find_phrases(
    member: Member,
    image_embeds: Tensor,
    phrases: str | Sequence[str],
    explain: bool,
    judge: Callable[[list[str]], Sequence[Match]] | None,
    cancel: Cancel | None,
) -> list[FoundPhrase]:
    """Every phrase in its order, a few at a time.

    Args:
        image_embeds: float[1, P, D].
        explain: also make the heat map of each phrase, by what the settings choose for it.
        judge: matches texts in place of a matching head that the model lacks.
    """
    tokens = [
        member.processor.tokenize(phrase, field="phrase")
        for phrase in check_texts("phrases", phrases, MAX_TEXTS)
    ]
    found: list[FoundPhrase] = []
    for start in range(0, len(tokens), TEXTS_AT_ONCE):
        check_cancel(cancel)
        part = _find_at_once(member, image_embeds, tokens[start : start + TEXTS_AT_ONCE], explain)
        if judge is not None and part[0].match is None:
            matches = judge([one.phrase.text for one in part])
            part = [
                replace(one, match=match.probability)
                for one, match in zip(part, matches, strict=True)
            ]
        found += part
    return found


def _find_at_once(
    member: Member, image_embeds: Tensor, phrases: list[TokenizedText], explain: bool
) -> list[FoundPhrase]:
    model, matching = member.model, "matching" in member.model.config.heads
    explanations: list[Explanation | None] = [None] * len(phrases)
    if explain:
        maps = member.settings.maps
        whole = maps.phrase if matching else replace(maps.phrase, target="box")
        spans = [split_phrases(tokens.text, tokens.words) for tokens in phrases]
        batch = lay_out(member, phrases, spans)
        part = maps.query if maps.query.target == "phrase" else whole
        explanations, fused = explain_phrases(member, image_embeds, batch, whole, part)
    else:
        text_embeds, mask = encode_texts(member, phrases)
        with torch.no_grad():
            fused = model.fuse(text_embeds, mask, image_embeds)
    with torch.no_grad():
        boxes = cxcywh_to_xyxy(model.predict_boxes(fused.float()).cpu()).clamp(0, 1)
        matches = match_probability(member, fused).tolist() if matching else [None] * len(phrases)
    return [FoundPhrase(*one) for one in zip(phrases, boxes, matches, explanations, strict=True)]


def make_grounding(
    found: FoundPhrase,
    size: tuple[int, int],
    thresholds: tuple[float, float],
    frame: int | None,
) -> Grounding:
    """The box put into the user's pixels, with the verdict.

    Args:
        size: (width, height) of the image.
        thresholds: match probabilities (absent, present).
    """
    width, height = size
    x1, y1, x2, y2 = found.box.tolist()
    heat = found.explanation
    return Grounding(
        phrase=found.phrase.text,
        box_xyxy=(x1 * width, y1 * height, x2 * width, y2 * height),
        box_cxcywh=tuple(xyxy_to_cxcywh(found.box).tolist()),
        match=found.match,
        verdict=verdict(found.match, thresholds),
        explanation=heat,
        agreement=None if heat is None else agreement(heat.overall, (x1, y1, x2, y2)),
        frame=frame,
        truncated_at=found.phrase.truncated_at,
    )


def verdict(match: float | None, thresholds: tuple[float, float]) -> Verdict | None:
    """`absent` below the first threshold, `found` from the second on, `unsure` between; None
    without a match probability."""
    if match is None:
        return None
    absent, present = thresholds
    return "absent" if match < absent else "found" if match >= present else "unsure"
