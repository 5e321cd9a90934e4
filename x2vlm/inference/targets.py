"""What an explanation explains: a match, the words of a caption, an answer or a box, each as a
quantity of the fused tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from x2vlm.errors import ParameterError
from x2vlm.inference import explain
from x2vlm.inference.matching import match_probability
from x2vlm.inference.models import Member
from x2vlm.modeling.causal_captioning import causal_mask
from x2vlm.processing import TokenizedText


@dataclass(frozen=True)
class ExplainedText:
    """One text ready for `x2vlm.inference.explain`.

    Attributes:
        text_embeds, attention_mask: as `X2VLM.fuse` takes them, one text.
        objective: fused_embeds -> the quantity whose gradient is taken, float[1].
        score: fused_embeds -> the number shown to the user.
        word_index: for each of the last `len(word_index)` tokens its word, -1 for none.
    """

    tokens: TokenizedText
    text_embeds: Tensor
    attention_mask: Tensor
    objective: explain.Objective
    score: Callable[[Tensor], float]
    word_index: tuple[int, ...]


def match_logit(member: Member, fused: Tensor) -> Tensor:
    """The class-1 logit of the matching head, the quantity behind a match: float[N]."""
    return member.model.match_logits(fused.float())[:, 1]


def box_sum(member: Member, fused: Tensor) -> Tensor:
    """The sum of a box (cx + cy + w + h, fractions), so of all that the box head says: float[N]."""
    return member.model.predict_boxes(fused.float()).sum(-1)


@torch.no_grad()
def match_target(member: Member, text: str) -> ExplainedText:
    """The match of a text; the score is the match probability."""
    return _plain(
        member,
        member.processor.tokenize(text),
        partial(match_logit, member),
        lambda fused: float(match_probability(member, fused)),
    )


@torch.no_grad()
def box_target(member: Member, text: str) -> ExplainedText:
    """The box of a text; the score is the sum of its four numbers."""
    tokens, total = member.processor.tokenize(text), partial(box_sum, member)
    return _plain(member, tokens, total, lambda fused: float(total(fused)))


@torch.no_grad()
def answer_target(member: Member, question: str, answer: str) -> ExplainedText:
    """The log-probability of the answer, through the question states that the decoder reads; the
    score is the probability."""
    model, tokens = member.model, member.processor.tokenize(question, "question", "question")
    if "answer_decoder" in model.config.heads:
        answer_ids = member.answer_tensors((answer,))[0]

        def log_probability(fused: Tensor) -> Tensor:
            decoder = model.answer_decoder
            hidden = decoder(
                answer_ids[:, :-1], decoder.project_context(fused), torch.ones_like(fused[..., 0])
            )
            scores = decoder.head(hidden).float().log_softmax(-1)
            return scores.gather(2, answer_ids[:, 1:, None]).sum((1, 2))
    else:
        if answer not in member.answers:
            raise ParameterError(
                "The answer is none of this model's own labels. Give one of them, or none.",
                "param/range",
            )
        label = member.answers.index(answer)

        def log_probability(fused: Tensor) -> Tensor:
            return model.classification_head(fused[:, 0]).float().log_softmax(-1)[:, label]

    return _plain(
        member, tokens, log_probability, lambda fused: float(log_probability(fused).exp())
    )


@torch.no_grad()
def caption_target(member: Member, caption: str) -> ExplainedText:
    """The log-probability of every token given those before it, all in one pass.

    A word's map is that of the places that predict its tokens: their `[MASK]`s
    (`explain.left_to_right_layout`), in a causal model the tokens before them. The score is the
    geometric mean of the tokens' probabilities.
    """
    model, processor = member.model, member.processor
    prompt = [processor.cls_id, *processor.pieces(member.settings.prompt)]
    tokens = processor.tokenize(
        caption, None, "caption", model.config.text.max_tokens - len(prompt)
    )
    pieces = tokens.ids[1:-1]
    if model.config.causal:
        ids = torch.tensor([[*prompt, *pieces[:-1]]], device=member.device)
        sees = causal_mask(ids.shape[1], member.device)
        positions = torch.arange(ids.shape[1], device=member.device)[None]
    else:
        ids, sees, positions = (
            tensor.to(member.device)
            for tensor in explain.left_to_right_layout(prompt, pieces, processor.mask_id)
        )
    wanted = torch.tensor([pieces], device=member.device)
    predict = model.causal_lm_logits if model.config.causal else model.masked_lm_logits
    places = torch.arange(ids.shape[1] - len(pieces), ids.shape[1], device=member.device)[None]

    def log_probabilities(fused: Tensor) -> Tensor:
        scores = predict(fused, places).float().log_softmax(-1)
        return scores.gather(2, wanted[..., None])[..., 0]

    return ExplainedText(
        tokens,
        model.encode_text(ids, sees, positions + model.config.text.first_position),
        sees,
        lambda fused: log_probabilities(fused).sum(-1),
        lambda fused: float(log_probabilities(fused).mean().exp()),
        tokens.word_index[1:-1],
    )


def explained_text(member: Member, text: str, target: str, answer: str) -> ExplainedText:
    """A whole text made ready for one of `x2vlm.options.TARGETS` (not `phrase`); the answer is for
    `answer` alone."""
    if target == "answer":
        return answer_target(member, text, answer)
    makers = {"match": match_target, "caption": caption_target, "box": box_target}
    return makers[target](member, text)


def _plain(
    member: Member,
    tokens: TokenizedText,
    objective: explain.Objective,
    score: Callable[[Tensor], float],
) -> ExplainedText:
    ids = torch.tensor([tokens.ids], device=member.device)
    mask = torch.ones_like(ids)
    return ExplainedText(
        tokens, member.model.encode_text(ids, mask), mask, objective, score, tokens.word_index
    )
