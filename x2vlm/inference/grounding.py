"""Boxes, match probabilities and heat of phrases on one encoded image, all from one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from x2vlm.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from x2vlm.inference.explain import agreement, merge_pieces, overall_map, relevance, trace_attention
from x2vlm.inference.models import Member
from x2vlm.modeling.x2vlm import region_context_mask
from x2vlm.processing import TokenizedText
from x2vlm.results import Explanation, Grounding, Verdict


def ground_phrases(
    member: Member, image_embeds: Tensor, phrases: list[TokenizedText], explain: bool
) -> tuple[Tensor, list[float | None], list[Explanation | None]]:
    """Boxes float[N, 4] (x1, y1, x2, y2) as fractions, inside the image; match probabilities,
    explanations.

    Args:
        image_embeds: float[1, P, D].
        explain: also trace the match logit, or the box where there is no matching head, back to the
            patches.
    """
    model, matching = member.model, "matching" in member.model.config.heads
    text_embeds, mask = encode_texts(member, phrases)
    if explain:
        objective = _match_logit if matching else _box_sum
        trace = trace_attention(
            model, text_embeds, mask, image_embeds, lambda fused: objective(member, fused)
        )
        fused, heat = trace.fused_embeds, relevance(trace, layer=member.settings.explain_layer)
    else:
        with torch.no_grad():
            fused = model.fuse(text_embeds, mask, image_embeds)
    with torch.no_grad():
        boxes = model.predict_boxes(fused.float()).cpu()
        matches = (
            model.match_logits(fused.float()).softmax(-1)[:, 1].tolist()
            if matching
            else [None] * len(phrases)
        )
    explanations: list[Explanation | None] = [None] * len(phrases)
    if explain:
        for i, tokens in enumerate(phrases):
            explanations[i] = Explanation(
                text=tokens.text,
                words=tokens.words,
                maps=merge_pieces(heat[i], tokens.word_index, len(tokens.words)),
                overall=overall_map(heat[i, : len(tokens.ids)]),
                target="match" if matching else "box",
                method="gradient",
                layer=member.settings.explain_layer,
                score=matches[i] if matching else float(boxes[i].sum()),
                truncated_at=tokens.truncated_at,
            )
    return cxcywh_to_xyxy(boxes).clamp(0, 1), matches, explanations


@torch.no_grad()
def match_texts(
    member: Member,
    image_embeds: Tensor,
    texts: list[TokenizedText],
    patch_mask: Tensor | None = None,
) -> tuple[list[float | None], list[float | None]]:
    """Match probability and cosine similarity of N texts with images float[B, P, D], B divides N;
    None without the head.

    Args:
        patch_mask: bool[1, P-1], the patches of a region that `image_embeds` were made for.
    """
    model, none = member.model, [None] * len(texts)
    text_embeds, mask = encode_texts(member, texts)
    probabilities, similarities = none, none
    if "matching" in model.config.heads:
        context_mask = None if patch_mask is None else region_context_mask(patch_mask)
        fused = model.fuse(text_embeds, mask, image_embeds, context_mask)
        probabilities = model.match_logits(fused.float()).softmax(-1)[:, 1].tolist()
    if "contrastive" in model.config.heads:
        features = model.image_features(image_embeds.float()).repeat_interleave(
            len(texts) // len(image_embeds), 0
        )
        similarities = (features * model.text_features(text_embeds.float())).sum(-1).tolist()
    return probabilities, similarities


@torch.no_grad()
def encode_texts(member: Member, texts: list[TokenizedText]) -> tuple[Tensor, Tensor]:
    """text_embeds float[N, T, C] and attention_mask int64[N, T]."""
    ids, mask = (
        tensor.to(member.device) for tensor in member.processor.pad([text.ids for text in texts])
    )
    return member.model.encode_text(ids, mask), mask


def make_grounding(
    phrase: TokenizedText,
    box: Tensor,
    size: tuple[int, int],
    match: float | None,
    thresholds: tuple[float, float],
    explanation: Explanation | None,
    frame: int | None,
) -> Grounding:
    """A box in fractions, float[4], put into the user's pixels, with the verdict."""
    width, height = size
    x1, y1, x2, y2 = box.tolist()
    heat = None if explanation is None else explanation.overall
    return Grounding(
        phrase=phrase.text,
        box_xyxy=(x1 * width, y1 * height, x2 * width, y2 * height),
        box_cxcywh=tuple(xyxy_to_cxcywh(box).tolist()),
        match=match,
        verdict=verdict(match, thresholds),
        explanation=explanation,
        agreement=None if heat is None else agreement(heat, (x1, y1, x2, y2)),
        frame=frame,
        truncated_at=phrase.truncated_at,
    )


def verdict(match: float | None, thresholds: tuple[float, float]) -> Verdict | None:
    """`absent` below the first threshold, `found` from the second on, `unsure` between; None
    without a match probability."""
    if match is None:
        return None
    absent, present = thresholds
    return "absent" if match < absent else "found" if match >= present else "unsure"


def _match_logit(member: Member, fused: Tensor) -> Tensor:
    return member.model.match_logits(fused.float())[:, 1]


def _box_sum(member: Member, fused: Tensor) -> Tensor:
    return member.model.predict_boxes(fused.float()).sum(-1)
