"""Visual question answering: a decoder reads the question after it has seen the image, and ranks or
writes answers.

Shapes: B questions, Q question tokens, A answers over all questions, K ranked answers, T answer
tokens, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from x2vlm.modeling.layers import KeyValueCache
from x2vlm.modeling.task import TaskModel, TaskOutput
from x2vlm.modeling.x2vlm import X2VLM


class X2VLMForQuestionAnswering(TaskModel):
    """Generative VQA with ranking over an answer list (arXiv 2111.08276, section 4.3)."""

    heads = ("answer_decoder",)
    loss_names = ("answer_loss",)

    def forward(
        self,
        visual: Tensor,
        question_ids: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        answer_weights: Tensor,
        answers_per_question: Tensor,
    ) -> TaskOutput:
        """Weighted likelihood of the answers.

        Args:
            visual: float[B, 3, H, W] or float[B, F, 3, H, W].
            question_ids, question_mask: int64[B, Q].
            answer_ids, answer_mask: int64[A, T], [CLS] answer [SEP]; answer_weights: float[A].
            answers_per_question: int64[B], sums to A.

        Returns:
            losses answer_loss: summed token negative log-likelihoods x weight, divided by B.
        """
        states = self.read_question(self.model.encode_visual(visual), question_ids, question_mask)
        loss = self.answer_loss(
            states, question_mask, answer_ids, answer_mask, answer_weights, answers_per_question
        )
        return TaskOutput({"answer_loss": loss})

    def answer_loss(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        answer_weights: Tensor,
        answers_per_question: Tensor,
    ) -> Tensor:
        """The loss of `forward` from question states float[B, Q, C]."""
        owner = torch.arange(len(question_states), device=answer_ids.device).repeat_interleave(
            answers_per_question
        )
        decoder = self.model.answer_decoder
        contexts = [
            (key[owner], value[owner]) for key, value in decoder.project_context(question_states)
        ]
        hidden = decoder(answer_ids[:, :-1], contexts, question_mask[owner])
        log_likelihood = self._token_log_likelihood(hidden, answer_ids[:, 1:], answer_mask[:, 1:])
        return -(log_likelihood * answer_weights).sum() / len(question_states)

    def read_question(
        self, image_embeds: Tensor, question_ids: Tensor, question_mask: Tensor
    ) -> Tensor:
        """Question states float[B, Q, C] that have seen the image."""
        return self.model.fuse(
            self.model.encode_text(question_ids, question_mask), question_mask, image_embeds
        )

    def rank_answers(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        k: int,
    ) -> tuple[Tensor, Tensor]:
        """The best of a list of answers.

        The k answers with the most probable first token are scored in full. The first token counts
        twice, as in the official code (published numbers depend on it).

        Args:
            question_states: float[B, Q, C] of `read_question`; question_mask: [B, Q].
            answer_ids, answer_mask: int64[A, T], [CLS] answer [SEP], padded on the right.

        Returns:
            index int64[B, K] into the list and probability float[B, K] among the K, best first.
        """
        decoder, batch, k = self.model.answer_decoder, len(question_states), min(k, len(answer_ids))
        contexts = decoder.project_context(question_states)
        cache = KeyValueCache(len(decoder.layers))
        start = answer_ids[:1, :1].expand(batch, 1)
        first = decoder.head(decoder(start, contexts, question_mask, cache)[:, 0]).float()
        first_log_probability = first.log_softmax(dim=-1)[:, answer_ids[:, 1]]
        candidates = first_log_probability.exp().topk(k, dim=1).indices
        cache.reorder(torch.arange(batch, device=start.device).repeat_interleave(k))
        ids, mask = answer_ids[candidates.flatten()], answer_mask[candidates.flatten()]
        longest = int(mask.sum(dim=1).max())
        hidden = decoder(ids[:, 1 : longest - 1], contexts, question_mask, cache)
        rest = self._token_log_likelihood(hidden, ids[:, 2:longest], mask[:, 2:longest]).view(
            batch, k
        )
        scores = 2 * first_log_probability.gather(1, candidates) + rest
        scores, order = scores.softmax(dim=1).sort(dim=1, descending=True)
        return candidates.gather(1, order), scores

    def _token_log_likelihood(self, hidden: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Summed log-probability of `targets` int64[A, T] given hidden float[A, T, C]: float[A].
        Padding is never scored."""
        real = mask.bool()
        logits = self.model.answer_decoder.head(hidden[real]).float()
        token_scores = torch.zeros(real.shape, device=hidden.device)
        token_scores[real] = -F.cross_entropy(logits, targets[real], reduction="none")
        return token_scores.sum(dim=1)


class AnswerStepDecoder:
    """`x2vlm.inference.generation.StepDecoder` that writes answers to B encoded questions."""

    def __init__(self, model: X2VLM, question_states: Tensor, question_mask: Tensor):
        model.require("answer_decoder")
        self._decoder, self._question_mask = model.answer_decoder, question_mask
        self._contexts = self._decoder.project_context(question_states)
        self._cache = KeyValueCache(len(self._decoder.layers))

    def step(self, token_ids: Tensor) -> Tensor:
        """int64[N, T] new tokens to float[N, V] logits of the next one."""
        return self._decoder.head(
            self._decoder(token_ids, self._contexts, self._question_mask, self._cache)[:, -1]
        )

    def reorder(self, rows: Tensor) -> None:
        """See `x2vlm.inference.generation.StepDecoder.reorder`."""
        self._cache.reorder(rows)
