"""Text encoder (BERT or XLM-R) and fusion encoder. Official checkpoints keep both in one 18-layer
BERT; here they are two.

Shapes: B texts, T tokens, C width, P image tokens, D image width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from x2vlm.modeling.layers import (
    Attend,
    KeysValues,
    KeyValueCache,
    LayerStack,
    TransformerLayer,
    attention_bias,
    fused_attention,
)


class TextEmbeddings(nn.Module):
    """Word + position + token-type embeddings, LayerNorm, dropout.

    With `positions_from_padding` (XLM-R) the first real token has position pad_token_id + 1 and
    padding keeps pad_token_id.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        max_positions: int,
        type_vocab_size: int,
        pad_token_id: int,
        layer_norm_eps: float,
        dropout: float,
        positions_from_padding: bool = False,
    ):
        super().__init__()
        self.pad_token_id, self.positions_from_padding = pad_token_id, positions_from_padding
        self.words = nn.Embedding(vocab_size, hidden_size)
        self.positions = nn.Embedding(max_positions, hidden_size)
        self.token_types = nn.Embedding(type_vocab_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """int64[B, T] to float[B, T, C]; `position_ids` int64[B or 1, T] override the natural
        ones."""
        if position_ids is None and self.positions_from_padding:
            real = input_ids != self.pad_token_id
            position_ids = real.cumsum(dim=1) * real + self.pad_token_id
        elif position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        embeds = self.words(input_ids) + self.positions(position_ids) + self.token_types.weight[0]
        return self.dropout(self.norm(embeds))


class TextEncoder(LayerStack):
    """Self-attention only."""

    def __init__(self, embeddings: TextEmbeddings, layers: list[TransformerLayer]):
        super().__init__(layers)
        self.embeddings = embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
        keep: int = 0,
    ) -> Tensor:
        """Encodes texts.

        Args:
            input_ids: int64[B, T].
            attention_mask: [B, T], or [B, T, S] where each token sees its own set (S = T plus
                cached tokens); 1 = attend.
            cache, keep: for generation, see `LayerStack.run`.

        Returns:
            float[B, T, C].
        """
        x = self.embeddings(input_ids, position_ids)
        return self.run(x, attention_bias(attention_mask, x.dtype), cache=cache, keep=keep)


class FusionEncoder(LayerStack):
    """Text queries, image keys and values; without an image its cross-attention is skipped."""

    def project_pair(self, first: Tensor, second: Tensor) -> list[KeysValues]:
        """`project_context` of twin layers (X-VLM's NLVR2): layer 0, 2, .. reads the first image
        of each pair, layer 1, 3, .. the second; both float[B, P, D]."""
        return [
            layer.cross_attention.keys_values(second if number % 2 else first)
            for number, layer in enumerate(self.layers)
        ]

    def forward(
        self,
        text_embeds: Tensor,
        attention_mask: Tensor | None,
        contexts: list[KeysValues] | None,
        context_mask: Tensor | None = None,
        attend: Attend = fused_attention,
        cache: KeyValueCache | None = None,
        keep: int = 0,
    ) -> Tensor:
        """Fuses texts with what `project_context` made of their image.

        Args:
            text_embeds: float[N, T, C], where N is a multiple of the B images.
            attention_mask: as in `TextEncoder.forward`.
            context_mask: [B, P], 1 = attend; None = all.

        Returns:
            float[N, T, C].
        """
        bias = attention_bias(attention_mask, text_embeds.dtype)
        context_bias = attention_bias(context_mask, text_embeds.dtype)
        return self.run(text_embeds, bias, contexts, context_bias, attend, cache, keep)
