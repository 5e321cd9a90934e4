"""Which tokens of a text are masked: whole words and short spans, as in X-VLM's pre-training (its
section 3.3, MLM).

The number of masked tokens is `round((length - prompt) * probability)`, at least one and at most
`max_masks`; [SEP] counts and can be masked, [CLS] and the prompt never are. Of the chosen tokens 80
% become [MASK], 10 % any token of the vocabulary, 10 % stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IGNORED_LABEL = -100


@dataclass(frozen=True)
class MaskingConfig:
    """How much is masked.

    Attributes:
        probability: share of the tokens that is predicted.
        max_masks: at most so many tokens of a text are predicted.
        whole_word: extend a chosen piece to its whole word (WordPiece vocabularies only).
        span_probability, max_span: a chosen token starts a span of 2..max_span tokens with this
            probability.
    """

    probability: float = 0.5
    max_masks: int = 12
    whole_word: bool = True
    span_probability: float = 0.2
    max_span: int = 3


class TokenMasker:
    """Chooses and replaces tokens.

    Args:
        config: how much is masked.
        mask_token_id, vocab_size: of the tokenizer.
        is_continuation: bool (vocab_size,), True for `##` pieces; unused without whole words.
    """

    def __init__(
        self,
        config: MaskingConfig,
        mask_token_id: int,
        vocab_size: int,
        is_continuation: np.ndarray,
    ):
        self.config = config
        self.mask_token_id = mask_token_id
        self.vocab_size = vocab_size
        self.is_continuation = is_continuation

    @classmethod
    def from_tokenizer(cls, config: MaskingConfig, tokenizer) -> TokenMasker:
        """`tokenizer`: any transformers tokenizer with a mask token."""
        vocabulary = tokenizer.get_vocab()
        is_continuation = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
        is_continuation[
            [index for token, index in vocabulary.items() if token.startswith("##")]
        ] = True
        return cls(config, tokenizer.mask_token_id, len(is_continuation), is_continuation)

    def sample_positions(
        self, ids: list[int], rng: np.random.Generator, prompt_length: int = 0
    ) -> list[int]:
        """Sorted positions to predict; `ids` begins with [CLS], then `prompt_length` tokens that
        are never chosen."""
        config = self.config
        first, last = 1 + prompt_length, len(ids) - 1
        wanted = min(
            config.max_masks, max(1, round((len(ids) - prompt_length) * config.probability))
        )
        chosen: set[int] = set()
        for start in rng.permutation(np.arange(first, last + 1)):
            if len(chosen) >= wanted:
                break
            if start in chosen:
                continue
            size = (
                rng.integers(2, config.max_span, endpoint=True)
                if rng.random() < config.span_probability
                else 1
            )
            begin, end = (
                self._whole_words(ids, start, start + size)
                if config.whole_word
                else (start, start + size)
            )
            chosen.update(
                int(position) for position in range(max(begin, first), min(end, last + 1))
            )
        positions = sorted(chosen)
        if len(positions) > wanted:
            positions = sorted(rng.permutation(positions)[:wanted].tolist())
        return positions

    def __call__(
        self, ids: list[int], rng: np.random.Generator
    ) -> tuple[list[int], list[int], list[int]]:
        """`(masked_ids, positions, labels)`: the text with tokens replaced, where, and what stood
        there."""
        positions = self.sample_positions(ids, rng)
        masked = list(ids)
        for position in positions:
            draw = rng.random()
            if draw < 0.8:
                masked[position] = self.mask_token_id
            elif draw < 0.9:
                masked[position] = int(rng.integers(self.vocab_size))
        return masked, positions, [ids[position] for position in positions]

    def _whole_words(self, ids: list[int], begin: int, end: int) -> tuple[int, int]:
        while begin > 0 and self.is_continuation[ids[begin]]:
            begin -= 1
        while end < len(ids) and self.is_continuation[ids[end]]:
            end += 1
        return begin, end
