"""Left-to-right generation: beam search and sampling over any decoder that predicts one token at a
time. Knows no images.

Differences from the official search: the token budget does not depend on the batch size, and the
search stops as soon as no running hypothesis can overtake the finished ones (the result is the
same, the work is not).

Shapes: B prompts, N beams (or samples) a prompt, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

FORBIDDEN = -10000.0
"""Log-probability of what may not come next, as in the official search."""


class StepDecoder(Protocol):
    """What generation needs from a model. Rows of one prompt are consecutive."""

    def step(self, token_ids: Tensor) -> Tensor:
        """Reads int64[B * N, T] new tokens, returns float[B * N, V] logits of the token that
        follows."""

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; int64[B * N]."""


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence, prompt not included, end token included if it came.

    `score` ranks hypotheses: the summed log-probability, divided by the length penalty if there is
    one.
    """

    token_ids: tuple[int, ...]
    token_log_probabilities: tuple[float, ...]
    score: float
    finished: bool

    @property
    def log_probability(self) -> float:
        return sum(self.token_log_probabilities)


@torch.no_grad()
def beam_search(
    decoder: StepDecoder,
    prompt_ids: Tensor,
    *,
    end_id: int,
    num_beams: int = 3,
    max_new_tokens: int = 50,
    min_length: int = 0,
    length_penalty: float = 0.0,
    no_repeat_ngram_size: int = 0,
    num_return: int = 1,
) -> list[list[Hypothesis]]:
    """The most probable continuations of each prompt.

    Args:
        decoder: fresh, B rows.
        prompt_ids: int64[B, T].
        min_length: the end token may not be among the first `min_length` tokens.
        length_penalty: alpha in score / ((5 + length) / 6) ** alpha; 0 prefers short sequences.
        no_repeat_ngram_size: n-grams of generated tokens that may not come twice; 0 = no rule.
        num_return: hypotheses kept per prompt, at most `num_beams`.

    Returns:
        For each prompt its hypotheses, best first.
    """
    batch, device = len(prompt_ids), prompt_ids.device
    frames: list[_Frame] = []
    tokens = prompt_ids
    history = prompt_ids.new_empty(batch, 0)
    penalty = ((5 + max_new_tokens) / 6) ** length_penalty
    for length in range(max_new_tokens):
        rows = 1 if length == 0 else num_beams
        scores = allowed_scores(
            decoder.step(tokens), history, length, end_id, min_length, no_repeat_ngram_size
        )
        best, ids = scores.topk(num_beams, dim=1)
        if frames:
            best = best + (frames[-1].scores + FORBIDDEN * frames[-1].ended).view(-1, 1)
        best, choice = best.view(batch, rows * num_beams).topk(num_beams, dim=1)
        ids = ids.view(batch, rows * num_beams).gather(1, choice)
        parents = choice // num_beams
        frames.append(_Frame(ids, parents, best, ids == end_id))
        if all(_is_decided(frames, b, length_penalty, penalty, num_return) for b in range(batch)):
            break
        source = (parents + rows * torch.arange(batch, device=device)[:, None]).flatten()
        decoder.reorder(source)
        tokens = ids.view(-1, 1)
        history = torch.cat([history[source], tokens], dim=1)
    return [_best_hypotheses(frames, b, length_penalty, num_return) for b in range(batch)]


@dataclass(frozen=True)
class _Frame:
    """One step of the search: int64[B, N] tokens and parent beams, float[B, N] summed
    log-probabilities, bool[B, N]."""

    tokens: Tensor
    parents: Tensor
    scores: Tensor
    ended: Tensor


def allowed_scores(
    logits: Tensor,
    history: Tensor,
    length: int,
    end_id: int,
    min_length: int,
    no_repeat_ngram_size: int,
) -> Tensor:
    """Log-probabilities float[B * N, V] of the next token, those that may not come made
    impossible."""
    scores = logits.float().log_softmax(dim=-1)
    if no_repeat_ngram_size and length >= no_repeat_ngram_size:
        for row, tokens in enumerate(history.tolist()):
            scores[row, _repeating_tokens(tokens, no_repeat_ngram_size)] += FORBIDDEN
    if length + 1 <= min_length:
        scores[:, end_id] = FORBIDDEN
    return scores


def _repeating_tokens(tokens: list[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram already present."""
    stem = tokens[len(tokens) - size + 1 :]
    return sorted(
        {
            tokens[i + size - 1]
            for i in range(len(tokens) - size + 1)
            if tokens[i : i + size - 1] == stem
        }
    )


def _is_decided(
    frames: list[_Frame], b: int, alpha: float, penalty: float, num_return: int
) -> bool:
    """True when no running beam of prompt b can still beat the `num_return` best finished ones."""
    running = frames[-1].scores[b][~frames[-1].ended[b]]
    if len(running) == 0:
        return True
    finished = sorted(_finished_scores(frames, b, alpha), reverse=True)
    return (
        len(finished) >= num_return and finished[num_return - 1] >= running.max().item() / penalty
    )


def _finished_scores(frames: list[_Frame], b: int, alpha: float) -> list[float]:
    return [
        score / ((5 + n) / 6) ** alpha
        for n, frame in enumerate(frames, start=1)
        for score, ended in zip(frame.scores[b].tolist(), frame.ended[b].tolist())
        if ended and score > FORBIDDEN / 2
    ]


def _best_hypotheses(
    frames: list[_Frame], b: int, alpha: float, num_return: int
) -> list[Hypothesis]:
    """Candidates are all beams that ended, and every beam of the last frame that counts; the first
    best wins a tie."""
    last = next(
        (n for n, frame in enumerate(frames) if bool(frame.ended[b].all())), len(frames) - 1
    )
    candidates = [
        (frames[n].scores[b, beam].item() / ((6 + n) / 6) ** alpha, n, beam)
        for n in range(last + 1)
        for beam in range(frames[n].tokens.shape[1])
        if n == last or bool(frames[n].ended[b, beam])
    ]
    candidates.sort(key=lambda candidate: -candidate[0])
    hypotheses: dict[tuple[int, ...], Hypothesis] = {}
    for score, n, beam in candidates:
        hypothesis = _trace(frames, b, n, beam, score)
        hypotheses.setdefault(hypothesis.token_ids, hypothesis)
        if len(hypotheses) == num_return:
            break
    return list(hypotheses.values())


def _trace(frames: list[_Frame], b: int, n: int, beam: int, score: float) -> Hypothesis:
    finished = bool(frames[n].ended[b, beam])
    tokens, sums = [], []
    for frame in reversed(frames[: n + 1]):
        tokens.append(int(frame.tokens[b, beam]))
        sums.append(float(frame.scores[b, beam]))
        beam = int(frame.parents[b, beam])
    tokens, sums = tokens[::-1], [0.0, *sums[::-1]]
    return Hypothesis(
        tuple(tokens), tuple(after - before for before, after in pairwise(sums)), score, finished
    )


@torch.no_grad()
def sample(
    decoder: StepDecoder,
    prompt_ids: Tensor,
    *,
    end_id: int,
    generators: Sequence[torch.Generator],
    num_samples: int = 1,
    max_new_tokens: int = 50,
    min_length: int = 0,
    top_p: float = 0.9,
    temperature: float = 1.0,
    no_repeat_ngram_size: int = 0,
) -> list[list[Hypothesis]]:
    """Nucleus sampling (Holtzman et al., arXiv 1904.09751): tokens drawn from the smallest set that
    holds `top_p` of the mass.

    Args:
        generators: one for each prompt, on the CPU; the same seed gives the same sequences,
            whatever else is in the batch.

    Returns:
        For each prompt `num_samples` hypotheses, best score (summed log-probability at temperature
        1) first.
    """
    device, rows = prompt_ids.device, len(prompt_ids) * num_samples
    tokens, history = prompt_ids, prompt_ids.new_empty(len(prompt_ids), 0)
    log_probabilities: list[Tensor] = []
    running = torch.ones(rows, dtype=torch.bool)
    for length in range(max_new_tokens):
        scores = allowed_scores(
            decoder.step(tokens), history, length, end_id, min_length, no_repeat_ngram_size
        )
        if length == 0 and num_samples > 1:
            source = torch.arange(len(prompt_ids), device=device).repeat_interleave(num_samples)
            decoder.reorder(source)
            scores, history = scores[source], history[source]
        kept = _nucleus(scores.cpu() / temperature, top_p)
        parts = zip(kept.split(num_samples), generators, strict=True)
        ids = torch.cat([torch.multinomial(part, 1, generator=own) for part, own in parts])
        log_probabilities.append(scores.cpu().gather(1, ids))
        tokens = ids.to(device)
        history = torch.cat([history, tokens], dim=1)
        running &= ids[:, 0] != end_id
        if not running.any():
            break
    sums = torch.cat(log_probabilities, dim=1).tolist()
    drawn = [_cut(ids, values, end_id) for ids, values in zip(history.tolist(), sums)]
    groups = [drawn[start : start + num_samples] for start in range(0, rows, num_samples)]
    return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    probabilities, order = scores.softmax(dim=-1).sort(dim=-1, descending=True)
    outside = probabilities.cumsum(dim=-1) - probabilities >= top_p
    outside[:, 0] = False
    return torch.zeros_like(probabilities).scatter(1, order, probabilities.masked_fill(outside, 0))


def _cut(ids: list[int], values: list[float], end_id: int) -> Hypothesis:
    finished = end_id in ids
    length = ids.index(end_id) + 1 if finished else len(ids)
    return Hypothesis(tuple(ids[:length]), tuple(values[:length]), sum(values[:length]), finished)
