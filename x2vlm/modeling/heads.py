"""What sits on top of the encoders: MLP heads, contrastive projections and the masked-LM head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLPHead(nn.Sequential):
    """Linear, LayerNorm, GELU, Linear with a hidden width of twice the input: matching, box, pair
    and label heads."""

    def __init__(self, in_features: int, out_features: int):
        hidden = 2 * in_features
        super().__init__(
            nn.Linear(in_features, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, out_features),
        )


class ProjectionHead(nn.Linear):
    """Token 0 of a sequence to an L2-normalised contrastive feature."""

    def forward(self, embeds: Tensor) -> Tensor:
        """float[B, T, C] to float[B, projection_size]."""
        return F.normalize(super().forward(embeds[:, 0]), dim=-1)


class MaskedLMHead(nn.Module):
    """Hidden states to vocabulary logits.

    Args:
        tied: word embeddings whose weight the last layer shares (BERT); None keeps a weight of its
            own (CCLM).
    """

    def __init__(
        self, hidden_size: int, vocab_size: int, layer_norm_eps: float, tied: nn.Embedding | None
    ):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        if tied is not None:
            self.decoder.weight = tied.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """float[..., C] to float[..., V]."""
        return self.decoder(self.norm(F.gelu(self.dense(hidden))))
