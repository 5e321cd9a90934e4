"""What every task model shares: one X2VLM inside (never copied, so several tasks can train one
model) and typed outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from x2vlm.config import X2VLMConfig
from x2vlm.losses import has_negative, sample_hard_negatives
from x2vlm.modeling.pretrained import Pretrained
from x2vlm.modeling.x2vlm import X2VLM


@dataclass(frozen=True)
class TaskOutput:
    """Named scalar losses, unweighted; their weighted sum is taken once, by the training loop."""

    losses: dict[str, Tensor]


class TaskModel(nn.Module, Pretrained):
    """A task on top of a shared model.

    Raises:
        CheckpointError: the model lacks a head of `heads` (`ckpt/keys`).
    """

    heads: ClassVar[tuple[str, ...]] = ()
    loss_names: ClassVar[tuple[str, ...]] = ()
    """What `forward` can put into `TaskOutput.losses`; the only list of them, training reads it."""

    def __init__(self, model: X2VLM):
        super().__init__()
        model.require(*self.heads)
        self.model = model

    @classmethod
    def from_config(cls, config: X2VLMConfig) -> X2VLM:
        """The model inside, with fresh weights."""
        return X2VLM.from_config(config)

    @classmethod
    def _wrap(cls, model: X2VLM) -> Self:
        return cls(model).eval()


def match_against_negatives(
    model: X2VLM,
    context: Tensor,
    context_mask: Tensor | None,
    text_embeds: Tensor,
    attention_mask: Tensor,
    similarity: Tensor,
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Matching logits of the B true pairs and 2B hard negatives (arXiv 2111.08276, section 3.3).

    Args:
        context: float[B, P, D] image, video, region or (CCLM) text embeddings; context_mask: [B,
            P].
        text_embeds: float[B, T, C].
        similarity: float[B, B], context x text, divided by the temperature.
        positives: int64[B] or int64[B, K], rows with an equal number in some column are never
            negatives of each other.

    Returns:
        logits float[3B, 2] and labels int64[3B]: pairs, then (negative context, text), then
            (context, negative text); the label
        is -100 where the batch holds no negative.
    """
    size = len(context)
    negative_context = sample_hard_negatives(similarity.T, positives)
    negative_text = sample_hard_negatives(similarity, positives)
    own = torch.arange(size, device=context.device)
    of_context = torch.cat([own, negative_context, own])
    of_text = torch.cat([own, own, negative_text])
    mask = None if context_mask is None else context_mask[of_context]
    fused = model.fuse(text_embeds[of_text], attention_mask[of_text], context[of_context], mask)
    negatives = torch.where(has_negative(size, positives, context.device), 0, -100)
    return model.match_logits(fused), torch.cat([torch.ones_like(negatives), negatives, negatives])
