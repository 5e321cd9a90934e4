"""Answers to questions about encoded images or videos: ranked from a list, written freely, or a
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
from x2vlm.results import UNSURE, Answer, Answers

SCORED_IN_FULL = 128
"""Answers of a list that are scored to their end: those with the most probable first token, as in
the official evaluation."""
MAX_ANSWER_TOKENS = 20
QUESTIONS_AT_ONCE = 8
"""Every question has up to `SCORED_IN_FULL` rows of its own."""


def answer_questions(
    member: Member,
    image_embeds: Tensor,
    questions: Sequence[TokenizedText],
    listed: tuple[str, ...],
    options: AnswerOptions,
    cancel: Cancel | None,
) -> list[Answers]:
    """One question about each of the images float[B, P, D]: answers ranked from the list, or
    written freely where there is none.

    Raises:
        ParameterError: ranking without a list (`param/range`).
    """
    mode = options.mode or ("rank" if listed else "generate")
    if mode == "rank" and not listed:
        raise ParameterError(
            "This model has no answer list. Give choices, or use mode 'generate'.", "param/range"
        )
    found = []
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        check_cancel(cancel)
        part = slice(start, start + QUESTIONS_AT_ONCE)
        asked = member, image_embeds[part], questions[part]
        if mode == "rank":
            found += rank_answers(*asked, listed, options.top_k + 1)
        else:
            found += generate_answers(*asked, options.top_k, cancel)
    limit = member.settings.sure if mode == "rank" and listed == member.answers else 0
    return [
        _judged(question, answers, mode, options.top_k, limit)
        for question, answers in zip(questions, found, strict=True)
    ]


def _judged(
    question: TokenizedText, answers: tuple[Answer, ...], mode: str, top_k: int, limit: float
) -> Answers:
    """Answers without the word that stands for none: its probability is missing from the others."""
    real = tuple(one for one in answers if one.text != UNSURE or not limit)[:top_k]
    unsure = bool(real) and real[0].probability < limit
    return Answers(question.text, real, mode, question.truncated_at, unsure)


@torch.no_grad()
def rank_answers(
    member: Member,
    image_embeds: Tensor,
    questions: Sequence[TokenizedText],
    choices: tuple[str, ...],
    top_k: int,
) -> list[tuple[Answer, ...]]:
    """The `top_k` best of the choices, best first, for each image and its question. Choices that
    the model reads as the same text, or that differ in case and spaces alone, are ranked once."""
    ids, mask = _tensors(member, questions)
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
    return [
        tuple(Answer(choices[rows[i]], p) for i, p in zip(*best, strict=True))
        for best in zip(index[:, :top_k].tolist(), probability[:, :top_k].tolist(), strict=True)
    ]


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
    member: Member,
    image_embeds: Tensor,
    questions: Sequence[TokenizedText],
    top_k: int,
    cancel: Cancel | None,
) -> list[tuple[Answer, ...]]:
    """The `top_k` most probable answers that the decoder writes, best first, for each image and its
    question; the probability is the whole sequence's.

    Raises:
        ParameterError: the model can only choose from its list (`param/range`).
    """
    if "answer_decoder" not in member.model.config.heads:
        raise ParameterError(
            "This model chooses from a list and writes no answers. Use mode 'rank'.", "param/range"
        )
    ids, mask = _tensors(member, questions)
    states = X2VLMForQuestionAnswering(member.model).read_question(image_embeds, ids, mask)
    check_cancel(cancel)
    found = beam_search(
        AnswerStepDecoder(member.model, states, mask),
        torch.full((len(ids), 1), member.processor.cls_id, device=member.device),
        end_id=member.processor.sep_id,
        num_beams=max(3, top_k),
        max_new_tokens=min(MAX_ANSWER_TOKENS, member.model.config.decoder.max_positions - 1),
        min_length=1,
        num_return=top_k,
    )
    written = [
        [Answer(member.processor.decode(h.token_ids), math.exp(h.log_probability)) for h in one]
        for one in found
    ]
    return [tuple(answer for answer in one if answer.text) for one in written]


def _labels(
    member: Member,
    image_embeds: Tensor,
    ids: Tensor,
    mask: Tensor,
    choices: tuple[str, ...],
    top_k: int,
) -> list[tuple[Answer, ...]]:
    """The labels of a classification head; its list is fixed."""
    if choices != member.answers:
        raise ParameterError(
            "This model answers from its own list of labels only. Leave the choices out.",
            "param/range",
        )
    logits = X2VLMForClassification(member.model).predict(image_embeds, ids, mask).float()
    best = logits.softmax(-1).topk(min(top_k, len(choices)))
    return [
        tuple(Answer(choices[i], p) for i, p in zip(*one, strict=True))
        for one in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _tensors(member: Member, questions: Sequence[TokenizedText]) -> tuple[Tensor, Tensor]:
    ids, mask = member.processor.pad([question.ids for question in questions])
    return ids.to(member.device), mask.to(member.device)
