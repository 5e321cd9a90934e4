"""Match probabilities and similarities of texts with encoded images, videos or regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from x2vlm.checks import Cancel, check_cancel
from x2vlm.inference.batch import padded
from x2vlm.inference.models import Member
from x2vlm.modeling.x2vlm import region_context_mask
from x2vlm.processing import TokenizedText
from x2vlm.results import Match

TEXTS_AT_ONCE = 16
MAX_TEXTS = 1000


def match_texts(
    member: Member,
    texts: Sequence[Sequence[str]],
    image_embeds: Tensor,
    patch_mask: Tensor | None = None,
    cancel: Cancel | None = None,
) -> list[tuple[Match, ...]]:
    """For each image one Match per text of it, in their order, a few texts at a time.

    Args:
        texts: of each of the B images, maybe none.
        image_embeds: float[B, P, D].
        patch_mask: bool[B, P-1], the patches of the regions that `image_embeds` were made for.
    """
    tokens = [[member.processor.tokenize(text) for text in one] for one in texts]
    found: list[list[Match]] = [[] for _ in tokens]
    for start in range(0, max(map(len, tokens)), TEXTS_AT_ONCE):
        check_cancel(cancel)
        part = [one[start : start + TEXTS_AT_ONCE] for one in tokens]
        owners = [i for i, one in enumerate(part) if one]
        rows = padded([part[i] for i in owners])
        patches = None if patch_mask is None else patch_mask[owners]
        scores = zip(*match_scores(member, image_embeds[owners], rows, patches), strict=True)
        scores, longest = list(scores), len(rows) // len(owners)
        for place, i in enumerate(owners):
            own = scores[place * longest : place * longest + len(part[i])]
            found[i] += [
                Match(text.text, *score, text.truncated_at)
                for text, score in zip(part[i], own, strict=True)
            ]
    return [tuple(one) for one in found]


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
    """text_embeds float[N, T, C] and attention_mask int64[N, T]; texts that come again are encoded
    once."""
    place = {ids: i for i, ids in enumerate(dict.fromkeys(text.ids for text in texts))}
    ids, mask = (tensor.to(member.device) for tensor in member.processor.pad(list(place)))
    embeds = member.model.encode_text(ids, mask)
    if len(place) == len(texts):
        return embeds, mask
    rows = [place[text.ids] for text in texts]
    return embeds[rows], mask[rows]


def match_probability(member: Member, fused: Tensor) -> Tensor:
    """Probability of a match from the fused tokens float[N, T, C]: float64[N], so that texts of
    which the model is sure are still told apart."""
    return member.model.match_logits(fused.float()).double().softmax(-1)[:, 1]
