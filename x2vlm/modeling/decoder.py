"""Answer decoder: causal layers that read the fused question states, never the image itself.

Shapes: A answers, T answer tokens, Q question tokens, C width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from x2vlm.modeling.heads import MaskedLMHead
from x2vlm.modeling.layers import (
    KeysValues,
    KeyValueCache,
    LayerStack,
    TransformerLayer,
    attention_bias,
)
from x2vlm.modeling.text import TextEmbeddings


class AnswerDecoder(LayerStack):
    """Embeddings, causal layers and a language-model head of its own."""

    def __init__(
        self, embeddings: TextEmbeddings, layers: list[TransformerLayer], head: MaskedLMHead
    ):
        super().__init__(layers)
        self.embeddings = embeddings
        self.head = head

    def forward(
        self,
        answer_ids: Tensor,
        contexts: list[KeysValues],
        question_mask: Tensor | None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Hidden states from which `head` predicts each following token.

        Args:
            answer_ids: int64[A, T], padding on the right (it cannot be seen from the left).
            contexts: `project_context` of the fused question states float[B, Q, C]; A is a multiple
                of B.
            question_mask: [B, Q], 1 = attend.
            cache: answers continued token by token.

        Returns:
            float[A, T, C].
        """
        past, length = (cache.length if cache else 0), answer_ids.shape[1]
        positions = torch.arange(past, past + length, device=answer_ids.device)
        x = self.embeddings(answer_ids, positions[None])
        causal = torch.arange(past + length, device=answer_ids.device)[None] <= positions[:, None]
        bias = attention_bias(causal[None], x.dtype)
        return self.run(
            x, bias, contexts, attention_bias(question_mask, x.dtype), cache=cache, keep=length
        )
