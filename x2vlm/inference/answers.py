"""Answers to a question about one encoded image or video: ranked from a list, written freely, or a
label of a closed list."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from x2vlm.checks import Cancel, check_cancel
from x2vlm.errors import ParameterError
from x2vlm.inference.generation import beam_search
from x2vlm.inference.models import Member
from x2vlm.modeling.classification import X2VLMForClassification
from x2vlm.modeling.vqa import AnswerStepDecoder, X2VLMForQuestionAnswering
from x2vlm.options import AnswerOptions
from x2vlm.processing import TokenizedText
from x2vlm.results import Answer, Answers

SCORED_IN_FULL = 128
"""Answers of a list that are scored to their end: those with the most probable first token, as in
the official evaluation."""
MAX_ANSWER_TOKENS = 20


def answer_question(
    member: Member,
    image_embeds: Tensor,
    question: TokenizedText,
    listed: tuple[str, ...],
    options: AnswerOptions,
    cancel: Cancel | None,
) -> Answers:
    """Answers ranked from the list, or written freely where there is none.

    Raises:
        ParameterError: ranking without a list (`param/range`).
    """
    mode = options.mode or ("rank" if listed else "generate")
    if mode == "rank" and not listed:
        raise ParameterError(
            "This model has no answer list. Give choices, or use mode 'generate'.", "param/range"
        )
    check_cancel(cancel)
    if mode == "rank":
        found = rank_answers(member, image_embeds, question, listed, options.top_k)
    else:
        found = generate_answers(member, image_embeds, question, options.top_k, cancel)
    return Answers(question.text, found, mode, question.truncated_at)


@torch.no_grad()
def rank_answers(
    member: Member,
    image_embeds: Tensor,
    question: TokenizedText,
    choices: tuple[str, ...],
    top_k: int,
) -> tuple[Answer, ...]:
    """The `top_k` best of the choices, best first. Choices that the model reads as the same text,
    or that differ in case and spaces alone, are ranked once."""
    ids, mask = _tensors(member, question)
    if "answer_decoder" not in member.model.config.heads:
        return _labels(member, image_embeds, ids, mask, choices, top_k)
    task = X2VLMForQuestionAnswering(member.model)
    states = task.read_question(image_embeds, ids, mask)
    answer_ids, answer_mask = member.answer_tensors(choices)
    rows = distinct(choices, answer_ids.tolist())
    if len(rows) < len(choices):
        answer_ids, answer_mask = answer_ids[rows], answer_mask[rows]
    index, probability = task.rank_answers(
        states, mask, answer_ids, answer_mask, k=max(SCORED_IN_FULL, top_k)
    )
    best = zip(index[0, :top_k].tolist(), probability[0, :top_k].tolist(), strict=True)
    return tuple(Answer(choices[rows[i]], p) for i, p in best)


def distinct(choices: Sequence[str], ids: Sequence[Sequence[int]]) -> list[int]:
    """Positions of the choices without those that repeat an earlier one: the same token ids, or
    the same text but for case and spaces."""
    seen, kept = set(), []
    for i, (choice, row) in enumerate(zip(choices, ids, strict=True)):
        looks = {" ".join(choice.casefold().split()), tuple(row)}
        if seen.isdisjoint(looks):
            kept.append(i)
        seen |= looks
    return kept


@torch.no_grad()
def generate_answers(
    member: Member, image_embeds: Tensor, question: TokenizedText, top_k: int, cancel: Cancel | None
) -> tuple[Answer, ...]:
    """The `top_k` most probable answers that the decoder writes, best first; the probability is the
    whole sequence's.

    Raises:
        ParameterError: the model can only choose from its list (`param/range`).
    """
    if "answer_decoder" not in member.model.config.heads:
        raise ParameterError(
            "This model chooses from a list and writes no answers. Use mode 'rank'.", "param/range"
        )
    ids, mask = _tensors(member, question)
    states = X2VLMForQuestionAnswering(member.model).read_question(image_embeds, ids, mask)
    check_cancel(cancel)
    found = beam_search(
        AnswerStepDecoder(member.model, states, mask),
        torch.tensor([[member.processor.cls_id]], device=member.device),
        end_id=member.processor.sep_id,
        num_beams=max(3, top_k),
        max_new_tokens=min(MAX_ANSWER_TOKENS, member.model.config.decoder.max_positions - 1),
        min_length=1,
        num_return=top_k,
    )[0]
    answers = [
        Answer(member.processor.decode(h.token_ids), math.exp(h.log_probability)) for h in found
    ]
    return tuple(answer for answer in answers if answer.text)


def _labels(
    member: Member,
    image_embeds: Tensor,
    ids: Tensor,
    mask: Tensor,
    choices: tuple[str, ...],
    top_k: int,
) -> tuple[Answer, ...]:
    """The label of a classification head; its list is fixed."""
    if choices != member.answers:
        raise ParameterError(
            "This model answers from its own list of labels only. Leave the choices out.",
            "param/range",
        )
    logits = X2VLMForClassification(member.model).predict(image_embeds, ids, mask)[0].float()
    best = logits.softmax(-1).topk(min(top_k, len(choices)))
    return tuple(
        Answer(choices[i], p)
        for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def _tensors(member: Member, question: TokenizedText) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([question.ids], device=member.device)
    return ids, torch.ones_like(ids)
