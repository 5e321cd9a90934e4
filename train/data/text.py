"""Texts -> token ids in the data workers, padded tensors in the collate functions. Ids come from
`x2vlm.processing`, as at inference.

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
from x2vlm.processing import Processor

LENGTH_STEP = 2
"""Padded lengths are multiples of it. Kernels are prepared once for every shape that occurs, so
shapes should be few; but padding is work for nothing, and at multiples of 8 more than half of the
sticker world's tokens was padding."""


@dataclass(frozen=True)
class EncodedText:
    """One text: `ids` with [CLS] and [SEP]; what masked LM reads, where it predicts and what. `key`
    is equal for texts of equal ids."""

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
    """Tokenises, masks and pads.

    Args:
        processor: cleans, tokenises and cuts the texts.
        masking: adds the masked-LM fields.
    """

    def __init__(self, processor: Processor, masking: MaskingConfig | None = None):
        self.processor = processor
        self.masker = TokenMasker.from_tokenizer(masking, processor.tokenizer) if masking else None

    def encode(
        self,
        text: str,
        rules: str | None,
        rng: np.random.Generator | None = None,
        max_tokens: int | None = None,
    ) -> EncodedText:
        """Ids as by `Processor.encode`; masked with `rng`, if given, and if the encoder masks."""
        ids = self.processor.encode(text, rules, max_tokens)
        key = text_key(repr(ids))
        if self.masker is None or rng is None:
            return EncodedText(ids, key)
        return EncodedText(ids, key, *self.masker(ids, rng))

    def collate(self, texts: Sequence[EncodedText], masked: bool = True) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (N, T) and, with masking, `masked_ids` (N, T),
        `masked_positions`, `masked_labels` (N, M).

        All int64. Unused positions are 0 with label -100.
        """
        pad = self.processor.pad_id
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
