"""Writes captions of encoded images, videos or regions, and completes `[MASK]`s: what the
language-model heads can do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from x2vlm.checks import Cancel, Progress, check_cancel, report
from x2vlm.errors import ParameterError, TextError
from x2vlm.inference.closing_beams import closing_beam_search
from x2vlm.inference.generation import Hypothesis, StepDecoder, beam_search, sample
from x2vlm.inference.models import Member
from x2vlm.modeling.captioning import CaptionDecoder
from x2vlm.modeling.causal_captioning import CausalCaptionDecoder
from x2vlm.options import CaptionOptions
from x2vlm.processing import TokenizedText
from x2vlm.results import Caption, Completion, Match
from x2vlm.texts import clean_caption, validate_text

MAX_MASKS = 8


class _Watched:
    """A decoder that looks at the caller's flag and reports at every token."""

    def __init__(
        self, decoder: StepDecoder, most: int, cancel: Cancel | None, progress: Progress | None
    ):
        self._decoder, self._most = decoder, most
        self._cancel, self._progress, self._count = cancel, progress, 0
        self.reorder = decoder.reorder

    def step(self, token_ids: Tensor) -> Tensor:
        check_cancel(self._cancel)
        report(self._progress, self._count / self._most, "Writing")
        self._count += 1
        return self._decoder.step(token_ids)


def write_captions(
    member: Member,
    image_embeds: Tensor,
    options: CaptionOptions,
    context_mask: Tensor | None = None,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> list[list[Caption]]:
    """Captions of each of the images float[B, P, D] by falling log-probability, `match` not filled
    in.

    Raises:
        TextError: a prefix that cannot be read (`text/*`). ParameterError: prefix and caption
            exceed the model (`param/range`).
        Cancelled: between two tokens.
    """
    model, processor = member.model, member.processor
    prefix = _prefix(member, options.prefix)
    prefix_ids = () if prefix is None else prefix.ids[1:-1]
    prompt = [processor.cls_id, *processor.pieces(member.settings.prompt), *prefix_ids]
    room = model.config.text.max_tokens - len(prompt) - 1
    if room < 1:
        raise ParameterError("The prefix leaves no room for a caption. Shorten it.", "param/range")
    most = min(options.max_new_tokens, room)
    shortest = member.settings.min_length if options.min_length is None else options.min_length
    prompt_ids = torch.tensor([prompt] * len(image_embeds), device=member.device)
    writer = (
        CausalCaptionDecoder(model, image_embeds, context_mask)
        if model.config.causal
        else CaptionDecoder(model, image_embeds, processor.mask_id, context_mask)
    )
    decoder = _Watched(writer, most, cancel, progress)
    shared = {
        "end_id": processor.sep_id,
        "max_new_tokens": most,
        "min_length": max(0, min(shortest - len(prefix_ids), most)),
        "no_repeat_ngram_size": member.settings.no_repeat_ngram_size,
    }
    if options.do_sample:
        drawing = {
            "generators": [torch.Generator().manual_seed(options.seed) for _ in image_embeds],
            "num_samples": options.num_captions,
            "top_p": options.top_p,
        }
        found = sample(decoder, prompt_ids, **drawing, temperature=options.temperature, **shared)
    else:
        beams = max(options.num_beams, options.num_captions)
        search = closing_beam_search if model.config.causal else beam_search
        found = search(
            decoder, prompt_ids, num_beams=beams, num_return=options.num_captions, **shared
        )
    return [[_caption(member, prefix, hypothesis) for hypothesis in one] for one in found]


def _prefix(member: Member, text: str | None) -> TokenizedText | None:
    """What a caption begins with; raises as `write_captions`."""
    if not text:
        return None
    prefix = member.processor.tokenize(text, None, "prefix")
    if prefix.truncated_at is not None:
        raise TextError(
            f"The prefix exceeds the {member.processor.max_tokens} tokens that the model reads. "
            f"Shorten it.",
            "text/long",
        )
    return prefix


def write_ranked(
    member: Member,
    image_embeds: Tensor,
    options: CaptionOptions,
    match: Callable[[list[list[str]]], Sequence[Sequence[Match]]] | None,
    context_mask: Tensor | None = None,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> list[tuple[Caption, ...]]:
    """`write_captions`; with a `match` the best by `caption_score` out of all that the beams
    find."""
    if match is None:
        found = write_captions(member, image_embeds, options, context_mask, cancel, progress)
        return [tuple(one) for one in found]
    candidates = options.num_captions
    if not options.do_sample:
        candidates = max(candidates, options.num_beams)
    wider = replace(options, num_captions=candidates)
    found = write_captions(member, image_embeds, wider, context_mask, cancel, progress)
    check_cancel(cancel)
    told = [[caption for caption in one if caption.text] for one in found]
    matches = match([[caption.text for caption in one] for one in told])
    ranked = []
    for every, some, matched in zip(found, told, matches, strict=True):
        filled = [
            replace(caption, match=one.probability)
            for caption, one in zip(some, matched, strict=True)
        ]
        filled.sort(key=lambda caption: -caption_score(caption.log_probability, caption.match))
        silent = [caption for caption in every if not caption.text]
        ranked.append((*filled, *silent)[: options.num_captions])
    return ranked


def caption_score(log_probability: float, match: float) -> float:
    """log p(caption | image) + log p(match | image, caption): a fluent caption that the matching
    head believes.

    Matches saturate, so by themselves they leave many captions equal.
    """
    return log_probability + math.log(max(match, 1e-12))


def _caption(member: Member, prefix: TokenizedText | None, hypothesis: Hypothesis) -> Caption:
    processor = member.processor
    text, words, _ = processor.decode_words(
        hypothesis.token_ids, hypothesis.token_log_probabilities, prefix
    )
    return Caption(
        text=text,
        log_probability=hypothesis.log_probability,
        tokens=tuple(processor.tokenizer.convert_ids_to_tokens(list(hypothesis.token_ids))),
        token_log_probabilities=hypothesis.token_log_probabilities,
        words=words,
        finished=hypothesis.finished,
        repetitive=is_repetitive([word.text for word in words]),
    )


def is_repetitive(words: list[str]) -> bool:
    """Whether a text goes in circles: the same one to four words three times in a row, or most
    words said before."""
    for size in range(1, 5):
        for start in range(len(words) - 3 * size + 1):
            first, second, third = (
                words[start + k * size : start + (k + 1) * size] for k in range(3)
            )
            if first == second == third:
                return True
    return len(words) >= 10 and len(set(words)) < len(words) / 2


@torch.no_grad()
def complete_masks(
    member: Member, image_embeds: Tensor, text: str, top_k: int
) -> tuple[Completion, ...]:
    """The `top_k` best fillings of a text's `[MASK]`s. Several masks are filled independently of
    each other.

    Raises:
        TextError: not readable, or too long to be read whole (`text/*`). ParameterError: no mask,
            or too many (`param/range`).
    """
    model, processor = member.model, member.processor
    validate_text(text, "text")
    mask_token = processor.tokenizer.mask_token
    segments = re.split(rf"\[MASK\]|{re.escape(mask_token)}", text)
    count = len(segments) - 1
    if not 1 <= count <= MAX_MASKS:
        raise ParameterError(
            f"Mark 1 to {MAX_MASKS} words to fill in with [MASK]; the text has {count}.",
            "param/range",
        )
    ids = [processor.cls_id]
    for i, segment in enumerate(segments):
        ids += [processor.mask_id] if i else []
        ids += processor.pieces(clean_caption(segment)) if re.search(r"\w", segment) else []
    ids.append(processor.sep_id)
    if len(ids) > processor.max_tokens:
        raise TextError(
            f"The text has {len(ids)} tokens, the model reads {processor.max_tokens}. Shorten it: "
            f"a cut could lose a [MASK].",
            "text/long",
        )
    input_ids = torch.tensor([ids], device=member.device)
    attention_mask = torch.ones_like(input_ids)
    positions = (input_ids == processor.mask_id).nonzero()[:, 1][None]
    fused = model.fuse(model.encode_text(input_ids, attention_mask), attention_mask, image_embeds)
    logits = model.masked_lm_logits(fused, positions)[0].float()
    logits[:, processor.tokenizer.all_special_ids] = -torch.inf
    # The best combinations use only each mask's own best words, and no more than top_k combinations
    # of them in all.
    best = logits.softmax(-1).topk(top_k, dim=-1)
    combinations = [((), 1.0)]
    for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        grown = [
            ((*ids, index), p * q)
            for (ids, p), (index, q) in product(combinations, zip(indices, values, strict=True))
        ]
        combinations = sorted(grown, key=lambda item: -item[1])[:top_k]
    return tuple(
        Completion(_filled(segments, processor, ids), probability)
        for ids, probability in combinations
    )


def _filled(segments: list[str], processor, ids: tuple[int, ...]) -> str:
    """The user's text with the words in place; a continuation piece (`##ing`) joins what stands
    before it."""
    text = segments[0]
    for piece, segment in zip(
        processor.tokenizer.convert_ids_to_tokens(list(ids)), segments[1:], strict=True
    ):
        text = text.rstrip() + piece[2:] if piece.startswith("##") else text + piece.lstrip("▁")
        text += segment
    return text
