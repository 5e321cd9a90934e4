"""Texts -> token ids in the data workers, padded tensors in the collate functions. A text always is
`[CLS] tokens [SEP]`.

Shape letters: N texts, T tokens, M masked positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.data.masking import IGNORED_LABEL, MaskingConfig, TokenMasker

LENGTH_STEP = 2
"""Padded lengths are multiples of it. Kernels are prepared once for every shape that occurs, so
shapes should be few; but padding is work for nothing, and at multiples of 8 more than half of the
sticker world's tokens was padding."""


@dataclass(frozen=True)
class EncodedText:
    """One text: `ids` with [CLS] and [SEP]; what masked LM reads, where it predicts and what. `key`
    is equal for equal texts."""

    ids: list[int]
    key: int
    masked_ids: list[int] | None = None
    positions: list[int] | None = None
    labels: list[int] | None = None


def text_key(text: str) -> int:
    """The same 63-bit number for the same text in every process: equal texts are positives of each
    other."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class TextEncoder:
    """Tokenises, cuts, masks and pads.

    Args:
        tokenizer: a fast transformers tokenizer.
        max_tokens: longest text, [CLS] and [SEP] included.
        masking: adds the masked-LM fields.
        first_position: of [CLS], where positions are given (`X2VLMConfig.text.first_position`).
    """

    def __init__(
        self,
        tokenizer,
        max_tokens: int = 40,
        masking: MaskingConfig | None = None,
        first_position: int = 0,
    ):
        self.tokenizer = tokenizer
        self.max_tokens, self.first_position = max_tokens, first_position
        self.masker = TokenMasker.from_tokenizer(masking, tokenizer) if masking else None
        self._backend = tokenizer.backend_tokenizer
        self._backend.encode_special_tokens = True  # a typed [MASK] is plain text

    def pieces(self, text: str) -> list[int]:
        """Ids of the text alone, never cut."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode(self, text: str, rng: np.random.Generator | None = None) -> EncodedText:
        """At most `max_tokens` ids; masked with `rng`, if given, and if the encoder masks."""
        tokens = self.pieces(text)[: self.max_tokens - 2]
        ids = [self.tokenizer.cls_token_id, *tokens, self.tokenizer.sep_token_id]
        if self.masker is None or rng is None:
            return EncodedText(ids, text_key(text))
        return EncodedText(ids, text_key(text), *self.masker(ids, rng))

    def collate(self, texts: Sequence[EncodedText], masked: bool = True) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (N, T) and, with masking, `masked_ids` (N, T),
        `masked_positions`, `masked_labels` (N, M).

        All int64. Unused positions are 0 with label -100.
        """
        pad = self.tokenizer.pad_token_id
        fields = {
            "input_ids": pad_rows([text.ids for text in texts], pad),
            "attention_mask": pad_rows([[1] * len(text.ids) for text in texts], 0),
        }
        if self.masker is not None and masked:
            fields["masked_ids"] = pad_rows([text.masked_ids for text in texts], pad)
            fields["masked_positions"] = pad_rows([text.positions for text in texts], 0)
            fields["masked_labels"] = pad_rows([text.labels for text in texts], IGNORED_LABEL)
        return fields


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """int64 (len(rows), longest row), filled up with `value`; see `LENGTH_STEP`."""
    longest = max(map(len, rows), default=1)
    table = np.full((len(rows), longest + -longest % LENGTH_STEP), value, dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return torch.from_numpy(table)
