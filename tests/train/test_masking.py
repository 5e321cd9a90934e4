"""Masking: counts, prompts, whole words, the 80/10/10 rule."""

import numpy as np
import pytest

from train.data.masking import MaskingConfig, TokenMasker

VOCABULARY = 1000
MASK, CLS, SEP = 4, 2, 3


def masker(**changes) -> TokenMasker:
    is_continuation = np.zeros(VOCABULARY, dtype=bool)
    is_continuation[500:] = True
    return TokenMasker(MaskingConfig(**changes), MASK, VOCABULARY, is_continuation)


def text(length: int) -> list[int]:
    return [CLS, *range(10, 10 + length - 2), SEP]


@pytest.mark.parametrize(
    ("length", "expected"), [(3, 2), (5, 2), (7, 4), (9, 4), (20, 10), (40, 12)]
)
def test_count_uses_bankers_rounding_and_the_limit(length, expected):
    for seed in range(20):
        assert len(masker().sample_positions(text(length), np.random.default_rng(seed))) == expected


def test_cls_and_prompt_are_never_chosen_and_sep_can_be():
    seen = set()
    for seed in range(300):
        seen.update(
            masker(probability=0.3).sample_positions(
                text(10), np.random.default_rng(seed), prompt_length=3
            )
        )
    assert seen == set(range(4, 10))


def test_whole_words_fall_together_unless_the_limit_cuts_them():
    ids = [CLS, 10, 500, 501, 11, 12, 502, SEP]
    words = [{1, 2, 3}, {4}, {5, 6}, {7}]
    whole = 0
    for seed in range(200):
        chosen = set(
            masker(probability=0.4, span_probability=0.0).sample_positions(
                ids, np.random.default_rng(seed)
            )
        )
        assert len(chosen) == 3
        whole += all(word <= chosen or not word & chosen for word in words)
    assert whole > 100
    pieces = masker(probability=0.4, whole_word=False, span_probability=0.0)
    split = [set(pieces.sample_positions(ids, np.random.default_rng(seed))) for seed in range(200)]
    assert (
        sum(all(word <= chosen or not word & chosen for word in words) for chosen in split) < whole
    )


def test_spans_are_neighbours():
    found = masker(probability=0.01, span_probability=1.0, max_span=2, whole_word=False)
    assert (
        len(found.sample_positions(text(30), np.random.default_rng(0))) == 1
    )  # cut back to the wanted number
    pairs = [
        masker(
            probability=0.07, span_probability=1.0, max_span=2, whole_word=False
        ).sample_positions(text(30), np.random.default_rng(seed))
        for seed in range(100)
    ]
    assert np.mean([b - a == 1 for a, b in pairs]) > 0.9


def test_replacement_shares_and_labels():
    rng = np.random.default_rng(1)
    kinds = np.zeros(3)
    for _ in range(600):
        ids = text(22)
        masked, positions, labels = masker()(ids, rng)
        assert labels == [ids[p] for p in positions]
        assert all(masked[i] == ids[i] for i in range(len(ids)) if i not in positions)
        for p in positions:
            kinds[0 if masked[p] == MASK else 2 if masked[p] == ids[p] else 1] += 1
    assert np.allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.02)


def test_same_rng_same_masks():
    assert masker()(text(20), np.random.default_rng(5)) == masker()(
        text(20), np.random.default_rng(5)
    )
