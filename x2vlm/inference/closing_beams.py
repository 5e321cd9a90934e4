"""Beam search as the transformers library does it (4.12.5), which X-VLM's captions are made with.

It departs from `x2vlm.inference.generation.beam_search` in three points: a hypothesis that ends
makes room for another running one; a score is divided by a power of the length, prompt counted and
end token not; the search ends when as many hypotheses as beams have ended and the best running one
cannot overtake the worst of them.

Shapes: B prompts, N beams a prompt, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from x2vlm.inference.generation import Hypothesis, StepDecoder, allowed_scores


@torch.no_grad()
def closing_beam_search(
    decoder: StepDecoder,
    prompt_ids: Tensor,
    *,
    end_id: int,
    num_beams: int = 3,
    max_new_tokens: int = 16,
    min_length: int = 0,
    length_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
    num_return: int = 1,
) -> list[list[Hypothesis]]:
    """The best continuations of each prompt.

    Args:
        decoder: fresh, B rows.
        prompt_ids: int64[B, T].
        min_length: the end token may not be among the first `min_length` tokens.
        length_penalty: alpha in score / length ** alpha.
        no_repeat_ngram_size: n-grams of generated tokens that may not come twice; 0 = no rule.
        num_return: hypotheses kept per prompt, at most `num_beams`.

    Returns:
        For each prompt its hypotheses, best first.
    """
    batch, prompt_length = prompt_ids.shape
    searches = [_Search(num_beams, length_penalty) for _ in range(batch)]
    tokens, history = prompt_ids, prompt_ids.new_empty(batch, 0)
    for length in range(max_new_tokens):
        scores = allowed_scores(
            decoder.step(tokens), history, length, end_id, min_length, no_repeat_ngram_size
        )
        rows = len(scores) // batch
        for search, own in zip(searches, scores.view(batch, rows, -1)):
            if not search.done:
                search.advance(own, end_id, prompt_length + length)
        if all(search.done for search in searches):
            break
        beams = [beam for search in searches for beam in search.running]
        source = [
            number * rows + beam.parent
            for number, search in enumerate(searches)
            for beam in search.running
        ]
        source = torch.tensor(source, device=tokens.device)
        decoder.reorder(source)
        tokens = torch.tensor([beam.tokens[-1:] for beam in beams], device=tokens.device)
        history = torch.cat([history[source], tokens], dim=1)
    return [search.finish(prompt_length + max_new_tokens)[:num_return] for search in searches]


@dataclass(frozen=True)
class _Beam:
    """A hypothesis that may go on; `parent` is the row of its prompt that it continues."""

    tokens: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    total: float = 0.0
    parent: int = 0


class _Search:
    """The search for one prompt: what runs, and the `size` best of what has ended."""

    def __init__(self, size: int, length_penalty: float):
        self.size, self.length_penalty = size, length_penalty
        self.running, self.done = [_Beam()], False
        self._ended: list[Hypothesis] = []

    def advance(self, scores: Tensor, end_id: int, length: int) -> None:
        """One token more.

        Args:
            scores: float[rows, V] log-probabilities of the next token of every running beam.
            length: tokens so far, the prompt's included.
        """
        totals = scores + scores.new_tensor([beam.total for beam in self.running])[:, None]
        best, places = totals.flatten().topk(2 * self.size)
        running: list[_Beam] = []
        for rank, (total, place) in enumerate(zip(best.tolist(), places.tolist())):
            parent, token = divmod(place, scores.shape[1])
            start = self.running[parent]
            values = (*start.values, scores[parent, token].item())
            beam = _Beam((*start.tokens, token), values, total, parent)
            if token != end_id and len(running) < self.size:
                running.append(beam)
            elif token == end_id and rank < self.size:
                self._close(beam, length, finished=True)
        self.running = running
        overtaking = best[0].item() / length**self.length_penalty
        self.done = len(self._ended) == self.size and self._ended[-1].score >= overtaking

    def finish(self, length: int) -> list[Hypothesis]:
        """The best hypotheses; what still runs at the last token counts as it is."""
        if not self.done:
            for beam in self.running:
                self._close(beam, length, finished=False)
        return self._ended

    def _close(self, beam: _Beam, length: int, finished: bool) -> None:
        score = beam.total / length**self.length_penalty
        self._ended.append(Hypothesis(beam.tokens, beam.values, score, finished))
        self._ended.sort(key=lambda hypothesis: -hypothesis.score)
        del self._ended[self.size :]
