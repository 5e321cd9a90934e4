"""Attention, transformer layers and the key/value cache that text, fusion and answer decoder share.

Layers are post-norm as in BERT. What attention does is a function handed in (`attend`): fused by
default, `AttentionRecord` when somebody wants to see the probabilities. Modules hold no inspection
state.

Shapes: B batch, N rows (B or a multiple of it), T queries, S keys, H heads, C width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from x2vlm.errors import ParameterError

KeysValues = tuple[Tensor, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]

MASKED = -1e4
"""Added to the score of a key that may not be seen; exp(-1e4) is 0 in every float format, and fp16
can hold it."""


def attention_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turns a mask (1 = attend) of shape (B, S) or (B, T, S) into additive scores (B, 1, 1 or T,
    S); None stays None."""
    if mask is None:
        return None
    mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    return (1.0 - mask.to(dtype)) * MASKED


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Softmax attention in one kernel.

    Args:
        query: (N, H, T, C/H).
        key, value: (B, H, S, C/H) where N is a multiple of B; row n reads key row n // (N / B).
            Rows that share keys are folded into one longer query, so the keys are read once.
        bias: additive (B or N, 1, 1 or T, S), or None.

    Returns:
        (N, H, T, C/H).
    """
    rows, batch = query.shape[0], key.shape[0]
    if rows == batch:
        return _attention_kernel(query, key, value, bias, dropout)
    group, (_, heads, length, width) = rows // batch, query.shape
    query = (
        query.reshape(batch, group, heads, length, width)
        .transpose(1, 2)
        .reshape(batch, heads, group * length, width)
    )
    out = _attention_kernel(query, key, value, bias, dropout)
    return (
        out.reshape(batch, heads, group, length, width)
        .transpose(1, 2)
        .reshape(rows, heads, length, width)
    )


def _attention_kernel(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float
) -> Tensor:
    # On a CPU the kernel's backward pass takes twice the time of the plain products (`python -m
    # benchmarks.training`).
    if query.is_cpu and torch.is_grad_enabled() and query.requires_grad:
        return F.dropout(attention_probabilities(query, key, bias), dropout) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)


def attention_probabilities(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(query key^T / sqrt(width) + bias), (N, H, T, S)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1)


class AttentionRecord:
    """Explicit attention that keeps what it saw: `probabilities[i]` is (N, H, T, S) of the i-th
    call."""

    def __init__(self):
        self.probabilities: list[Tensor] = []

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float = 0.0
    ) -> Tensor:
        group = query.shape[0] // key.shape[0]
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
        if bias is not None and bias.shape[0] not in (1, len(query)):
            bias = bias.repeat_interleave(group, 0)
        probabilities = attention_probabilities(query, key, bias)
        self.probabilities.append(probabilities)
        return F.dropout(probabilities, dropout) @ value


class KeyValueCache:
    """Keys and values of the tokens read so far, written into one tensor that doubles when it is
    full.

    Made and owned by the caller, for use without gradients.
    """

    def __init__(self, num_layers: int):
        self._num_layers = num_layers
        self._store: Tensor | None = None  # (layers, 2, B, H, room, C/H)
        self.length = 0

    def extend(self, layer: int, keys_values: KeysValues) -> KeysValues:
        """Everything so far plus the new tokens, of which `LayerStack.run` remembers some by moving
        `length`."""
        start, end = self.length, self.length + keys_values[0].shape[2]
        if self._store is None or end > self._store.shape[4]:
            batch, heads, _, width = keys_values[0].shape
            store = keys_values[0].new_empty(self._num_layers, 2, batch, heads, 2 * end, width)
            if self._store is not None:
                store[..., :start, :] = self._store[..., :start, :]
            self._store = store
        keys, values = self._store[layer, ..., :end, :]
        keys[:, :, start:], values[:, :, start:] = keys_values
        return keys, values

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was, (N,) long."""
        self._store = self._store.index_select(2, rows)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample and rescales the rest (Huang et al.,
    arXiv 1603.09382).

    With `per_token` the draw is one per token position, shared by the batch: what the official
    RefCOCO+ recipe did.
    """

    def __init__(self, rate: float, per_token: bool = False):
        super().__init__()
        self.rate, self.per_token = rate, per_token

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        shape = (1, x.shape[1], 1) if self.per_token else (x.shape[0], 1, 1)
        return x * x.new_empty(shape).bernoulli_(1 - self.rate) / (1 - self.rate)


class Attention(nn.Module):
    """Multi-head attention whose keys and values come from tokens of width `context_size`."""

    def __init__(self, hidden_size: int, num_heads: int, context_size: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(context_size, hidden_size)
        self.value = nn.Linear(context_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def keys_values(self, context: Tensor) -> KeysValues:
        """(B, S, context_size) to two tensors (B, H, S, C/H)."""
        return self._split(self.key(context)), self._split(self.value(context))

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        bias: Tensor | None,
        attend: Attend = fused_attention,
    ) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        out = attend(
            self._split(self.query(x)), *keys_values, bias, self.dropout if self.training else 0.0
        )
        return self.output(out.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention, optional cross-attention, MLP; each followed by dropout, residual and
    LayerNorm (post-norm).

    Args:
        context_size: width of the tokens that cross-attention reads; None builds no
            cross-attention.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        layer_norm_eps: float,
        dropout: float,
        context_size: int | None = None,
        drop_path: float = 0.0,
        drop_path_per_token: bool = False,
    ):
        super().__init__()
        self.attention = Attention(hidden_size, num_heads, hidden_size, dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        if context_size is not None:
            self.cross_attention = Attention(hidden_size, num_heads, context_size, dropout)
            self.cross_attention_norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.mlp_norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        # Stochastic depth replaces the dropout of the three branches; attention dropout stays.
        self.residual = (
            DropPath(drop_path, drop_path_per_token) if drop_path > 0 else nn.Dropout(dropout)
        )

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        bias: Tensor | None,
        context: KeysValues | None = None,
        context_bias: Tensor | None = None,
        attend: Attend = fused_attention,
    ) -> Tensor:
        """One layer.

        Args:
            x: (N, T, C).
            keys_values: of self-attention, `self.attention.keys_values(x)` or a cache's extension
                of them.
            context: keys and values of cross-attention (B, H, S, C/H); None skips cross-attention.
            attend: used by cross-attention only.
        """
        x = self.attention_norm(x + self.residual(self.attention(x, keys_values, bias)))
        if context is not None:
            x = self.cross_attention_norm(
                x + self.residual(self.cross_attention(x, context, context_bias, attend))
            )
        return self.mlp_norm(x + self.residual(self.fc2(F.gelu(self.fc1(x)))))


class LayerStack(nn.Module):
    """A run of transformer layers: text encoder body, fusion encoder or answer decoder body."""

    def __init__(self, layers: list[TransformerLayer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def project_context(self, context: Tensor) -> list[KeysValues]:
        """Cross-attention keys and values of every layer, computed once for any number of texts.

        Raises:
            ParameterError: tokens of another width than these layers read (`param/range`).
        """
        width = self.layers[0].cross_attention.key.weight.shape[1] if len(self.layers) else None
        if width not in (None, context.shape[-1]):
            raise ParameterError(
                f"Cross-attention reads tokens of width {width}, these have {context.shape[-1]}. "
                f"Texts stand in for images only where the image tower is as wide as the text "
                f"encoder.",
                "param/range",
            )
        return [layer.cross_attention.keys_values(context) for layer in self.layers]

    def run(
        self,
        x: Tensor,
        bias: Tensor | None,
        contexts: list[KeysValues] | None = None,
        context_bias: Tensor | None = None,
        attend: Attend = fused_attention,
        cache: KeyValueCache | None = None,
        keep: int = 0,
    ) -> Tensor:
        """(N, T, C) through all layers.

        Args:
            cache, keep: earlier tokens, and how many of the T new ones join them: the first `keep`.
        """
        for index, layer in enumerate(self.layers):
            keys_values = layer.attention.keys_values(x)
            if cache is not None:
                keys_values = cache.extend(index, keys_values)
            x = layer(
                x, keys_values, bias, contexts[index] if contexts else None, context_bias, attend
            )
        if cache is not None:
            cache.length += keep
        return x
