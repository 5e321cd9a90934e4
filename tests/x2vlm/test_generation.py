"""Search and sampling over a decoder whose probabilities are written down."""

import itertools
import math

import pytest
import torch

from x2vlm.inference.generation import beam_search, sample

END = 0


class TableDecoder:
    """Next-token log-probabilities that depend on the whole history, by a seeded table: any search
    can be checked by force."""

    def __init__(self, rows, vocabulary=5, seed=0):
        self.vocabulary, self.seed = vocabulary, seed
        self.histories = [[] for _ in range(rows)]
        self.steps = 0

    def log_probabilities(self, history):
        code = hash(tuple(history)) % 100003
        generator = torch.Generator().manual_seed(self.seed * 100003 + code)
        return (2 * torch.randn(self.vocabulary, generator=generator)).log_softmax(0)

    def step(self, token_ids):
        self.steps += 1
        self.histories = [history + row for history, row in zip(self.histories, token_ids.tolist())]
        return torch.stack([self.log_probabilities(history) for history in self.histories])

    def reorder(self, rows):
        self.histories = [self.histories[row] for row in rows.tolist()]


def all_sequences(decoder, prompt, longest):
    """(score, tokens) of every ended sequence, and of every one cut at `longest`."""
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(decoder.vocabulary), repeat=length):
            ended = tokens[-1] == END
            if END in tokens[:-1] or (length < longest and not ended):
                continue
            score = sum(
                decoder.log_probabilities(list(prompt) + list(tokens[:i]))[t].item()
                for i, t in enumerate(tokens)
            )
            yield score, tokens


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_best_of_all_sequences(seed):
    decoder = TableDecoder(1, vocabulary=4, seed=seed)
    best_score, best = max(all_sequences(decoder, [1, 2], 4))
    found = beam_search(decoder, torch.tensor([[1, 2]]), end_id=END, num_beams=4, max_new_tokens=4)
    exhaustive = beam_search(
        TableDecoder(1, 4, seed), torch.tensor([[1, 2]]), end_id=END, num_beams=1, max_new_tokens=4
    )
    assert exhaustive[0][0].score <= found[0][0].score + 1e-6 <= best_score + 2e-6
    hypothesis = found[0][0]
    score = sum(hypothesis.token_log_probabilities)
    assert (
        score
        == pytest.approx(hypothesis.log_probability)
        == pytest.approx(hypothesis.score, abs=1e-5)
    )
    if hypothesis.token_ids == best:
        assert hypothesis.score == pytest.approx(best_score, abs=1e-5)


def full_search(decoder, prompt, num_beams, max_new_tokens, alpha=0.0):
    """The rule without early stopping, in plain Python: what `beam_search` must return."""
    beams, candidates, logs = [(0.0, [])], [], {}
    for frame in range(max_new_tokens):
        extended = []
        for total, tokens in beams:
            dead = bool(tokens) and tokens[-1] == END
            logs = decoder.log_probabilities(prompt + tokens)
            best = logs.topk(num_beams)
            extended += [
                (total + v - 10000 * dead, [*tokens, t])
                for v, t in zip(best.values.tolist(), best.indices.tolist())
            ]
        beams = sorted(extended, key=lambda item: -item[0])[:num_beams]
        everything_ended = all(tokens[-1] == END for _, tokens in beams)
        last = everything_ended or frame == max_new_tokens - 1
        norm = ((6 + frame) / 6) ** alpha
        candidates += [
            (total / norm, tokens) for total, tokens in beams if last or tokens[-1] == END
        ]
        if everything_ended:
            break
    return max(candidates, key=lambda item: item[0])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_early_stopping_never_changes_the_winner(seed, alpha):
    expected_score, expected = full_search(TableDecoder(1, seed=seed), [1], 3, 9, alpha)
    decoder = TableDecoder(1, seed=seed)
    found = beam_search(
        decoder,
        torch.tensor([[1]]),
        end_id=END,
        num_beams=3,
        max_new_tokens=9,
        length_penalty=alpha,
    )
    assert list(found[0][0].token_ids) == expected
    assert found[0][0].score == pytest.approx(expected_score, abs=1e-4)


def test_batched_search_equals_single():
    prompts = torch.tensor([[1, 2], [3, 4], [2, 2]])
    together = beam_search(TableDecoder(3), prompts, end_id=END, max_new_tokens=6, num_return=2)
    for row in range(3):
        alone = beam_search(
            TableDecoder(1), prompts[row : row + 1], end_id=END, max_new_tokens=6, num_return=2
        )
        assert alone[0] == together[row]


def test_length_rules_and_blocked_ngrams():
    for seed in range(5):
        options = {"end_id": END, "max_new_tokens": 12, "min_length": 6, "no_repeat_ngram_size": 2}
        tokens = beam_search(TableDecoder(1, 8, seed), torch.tensor([[1]]), **options)[0][
            0
        ].token_ids
        assert END not in tokens[:6]
        pairs = list(itertools.pairwise(tokens))
        assert len(pairs) == len(set(pairs))


def test_several_hypotheses_are_distinct_and_sorted():
    found = beam_search(
        TableDecoder(1),
        torch.tensor([[1]]),
        end_id=END,
        num_beams=4,
        max_new_tokens=6,
        num_return=4,
    )[0]
    assert len({h.token_ids for h in found}) == len(found) > 1
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_sampling_is_seeded_and_keeps_to_the_nucleus():
    prompt = torch.tensor([[1]])

    def draw(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return sample(
            TableDecoder(1), prompt, end_id=END, generators=[generator], max_new_tokens=6, **options
        )[0]

    assert draw(3, num_samples=4) == draw(3, num_samples=4)
    assert draw(3, num_samples=4) != draw(4, num_samples=4)
    greedy = beam_search(TableDecoder(1), prompt, end_id=END, num_beams=1, max_new_tokens=6)[0][0]
    assert draw(0, top_p=1e-9)[0].token_ids == greedy.token_ids
    decoder = TableDecoder(1)
    for hypothesis in draw(5, num_samples=8, top_p=0.5):
        history = [1]
        for token, log_probability in zip(hypothesis.token_ids, hypothesis.token_log_probabilities):
            logs = decoder.log_probabilities(history)
            above = logs.exp()[logs > logs[token]].sum().item()
            assert above < 0.5
            assert math.isclose(logs[token].item(), log_probability, abs_tol=1e-5)
            history.append(token)
