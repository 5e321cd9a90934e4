"""Match probabilities and similarities of texts with one encoded image, video or region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from x2vlm.checks import Cancel, check_cancel, check_texts
from x2vlm.inference.models import Member
from x2vlm.modeling.x2vlm import region_context_mask
from x2vlm.processing import TokenizedText
from x2vlm.results import Match

TEXTS_AT_ONCE = 16
MAX_TEXTS = 1000


def match_texts(
    member: Member,
    texts: str | Sequence[str],
    image_embeds: Tensor,
    patch_mask: Tensor | None = None,
    cancel: Cancel | None = None,
) -> tuple[Match, ...]:
    """One Match per text, in their order, a few texts at a time.

    Args:
        image_embeds: float[1, P, D].
        patch_mask: bool[1, P-1], the patches of a region that `image_embeds` were made for.
    """
    tokens = [member.processor.tokenize(text) for text in check_texts("texts", texts, MAX_TEXTS)]
    found: list[Match] = []
    for start in range(0, len(tokens), TEXTS_AT_ONCE):
        check_cancel(cancel)
        part = tokens[start : start + TEXTS_AT_ONCE]
        scores = zip(part, *match_scores(member, image_embeds, part, patch_mask), strict=True)
        found += [Match(text.text, *score, text.truncated_at) for text, *score in scores]
    return tuple(found)


def match_frames(
    member: Member, frames: Tensor, text: str, cancel: Cancel | None
) -> list[float | None]:
    """Match probability of one text with each of the frames float[F, P, D]; the cosine without a
    matching head."""
    tokens, values = member.processor.tokenize(text), []
    for part in frames.split(TEXTS_AT_ONCE):
        check_cancel(cancel)
        probabilities, similarities = match_scores(member, part, [tokens] * len(part))
        values += similarities if probabilities[0] is None else probabilities
    return values


@torch.no_grad()
def match_scores(
    member: Member,
    image_embeds: Tensor,
    texts: list[TokenizedText],
    patch_mask: Tensor | None = None,
) -> tuple[list[float | None], list[float | None]]:
    """Match probability and cosine similarity of N texts with images float[B, P, D], B divides N;
    None without the head. `patch_mask` as in `match_texts`."""
    model, none = member.model, [None] * len(texts)
    text_embeds, mask = encode_texts(member, texts)
    probabilities, similarities = none, none
    if "matching" in model.config.heads:
        context_mask = None if patch_mask is None else region_context_mask(patch_mask)
        fused = model.fuse(text_embeds, mask, image_embeds, context_mask)
        probabilities = match_probability(member, fused).tolist()
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


def match_probability(member: Member, fused: Tensor) -> Tensor:
    """Probability of a match from the fused tokens float[N, T, C]: float[N]."""
    return member.model.match_logits(fused.float()).softmax(-1)[:, 1]
