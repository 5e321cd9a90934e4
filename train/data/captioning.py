"""Captions for next-token prediction (`caption_tokens`) and for left-to-right masked LM: there a
[MASK] stands before each predicted token, at the same position.

    tokens      [CLS] a dog  [SEP]            sequence    [CLS] a [MASK] dog [SEP]
    masked          . . x    .                positions     0   1    2    2    3

A token attends to the tokens left of it; only a [MASK] itself attends to a [MASK]. So each [MASK]
predicts its token from the real tokens before it, exactly as in generation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.data.masking import IGNORED_LABEL, TokenMasker
from train.data.text import pad_rows
from x2vlm.processing import Processor


@dataclass(frozen=True)
class CaptionLayout:
    """One caption: ids with the inserted masks, the position of each, where the masks stand and
    which tokens they predict."""

    ids: list[int]
    position_ids: list[int]
    mask_positions: list[int]
    labels: list[int]


def caption_tokens(caption: str, processor: Processor, prompt: str) -> list[int]:
    """`[CLS] prompt caption [SEP]`, cut to the processor's `max_tokens`. A caption that begins with
    the prompt does not get it twice."""
    caption = re.sub(rf"^\s*{re.escape(prompt)}\b", "", caption, flags=re.IGNORECASE)
    words = [*processor.pieces(prompt), *processor.pieces(caption)]
    return [processor.cls_id, *words, processor.sep_id][: processor.max_tokens]


def caption_layout(
    caption: str,
    processor: Processor,
    masker: TokenMasker,
    rng: np.random.Generator,
    prompt: str = "a picture of",
) -> CaptionLayout:
    """`caption_tokens` with masks inserted in front of some; the prompt is never predicted."""
    tokens = caption_tokens(caption, processor, prompt)
    chosen = masker.sample_positions(tokens, rng, len(processor.pieces(prompt)))
    return masked_layout(tokens, chosen, processor)


def masked_layout(
    tokens: Sequence[int], chosen: Collection[int], processor: Processor
) -> CaptionLayout:
    """Tokens with masks inserted in front of those at the places `chosen`. Positions count from the
    text encoder's `first_position`."""
    first, places = processor.config.text.first_position, set(chosen)
    ids, position_ids, mask_positions = [], [], []
    for place, token in enumerate(tokens):
        if place in places:
            mask_positions.append(len(ids))
            ids.append(processor.mask_id)
            position_ids.append(first + place)
        ids.append(token)
        position_ids.append(first + place)
    return CaptionLayout(ids, position_ids, mask_positions, [tokens[p] for p in sorted(places)])


def collate_tokens(rows: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` int64 (N, T) of `caption_tokens`, for next-token
    prediction."""
    return {
        "input_ids": pad_rows(rows, pad_token_id),
        "attention_mask": pad_rows([[1] * len(row) for row in rows], 0),
    }


def collate_captions(layouts: Sequence[CaptionLayout], pad_token_id: int) -> dict[str, Tensor]:
    """`input_ids`, `position_ids` int64 (N, L), `attention_mask` bool (N, L, L),
    `masked_positions`, `masked_labels` (N, M)."""
    input_ids = pad_rows([layout.ids for layout in layouts], pad_token_id)
    length = input_ids.shape[1]
    is_mask = torch.zeros(len(layouts), length, dtype=torch.bool)
    for row, layout in enumerate(layouts):
        is_mask[row, layout.mask_positions] = True
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "input_ids": input_ids,
        "position_ids": pad_rows([layout.position_ids for layout in layouts], 0),
        "attention_mask": causal & (~is_mask[:, None] | torch.eye(length, dtype=torch.bool)),
        "masked_positions": pad_rows([layout.mask_positions for layout in layouts], 0),
        "masked_labels": pad_rows([layout.labels for layout in layouts], IGNORED_LABEL),
    }
