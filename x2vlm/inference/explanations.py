"""Explanations of texts: a heat map for every phrase, in its sentence or read by itself, and one of
the text as a whole.

N texts, R rows of the batch (the texts first, then the phrases that are read by themselves), T
tokens, P image tokens incl. pooled, G x G patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from x2vlm.errors import TextError
from x2vlm.inference import explain
from x2vlm.inference.batch import padded
from x2vlm.inference.matching import encode_texts, match_probability
from x2vlm.inference.models import Member
from x2vlm.inference.phrases import Span, split_phrases
from x2vlm.inference.targets import ExplainedText, box_sum, match_logit
from x2vlm.options import METHODS, TARGETS, USES, ExplainOptions, MapChoice
from x2vlm.processing import TokenizedText
from x2vlm.results import Explanation, Phrase


def choose_target(serving: Mapping[str, Member], options: ExplainOptions) -> str:
    """What is explained: what was asked for, else what the settings say, else what a model can.

    Args:
        serving: task -> the model that serves it.
    """
    use = USES[options.purpose]
    owner = serving.get(use.task) or serving.get("explain")
    if options.target is not None or owner is None:
        return options.target or use.targets[0]

    def possible(name: str) -> bool:
        member = serving.get(TARGETS[name].task)
        return member is not None and set(TARGETS[name].heads) <= set(member.model.config.heads)

    wanted = [getattr(owner.settings.maps, options.purpose).target, *use.targets]
    return next(filter(possible, wanted), wanted[0])


def choose_map(member: Member, options: ExplainOptions, target: str) -> MapChoice:
    """How the maps are computed: the stored choice with what the caller chose in its place.

    Raises:
        ParameterError: the model has no such layer or head (`param/range`).
    """
    fusion = member.model.config.fusion
    choice = getattr(member.settings.maps, options.purpose).changed_by(options, target)
    choice.check(fusion.num_layers, fusion.num_heads)
    return choice


def explain_sentence(
    member: Member,
    image_embeds: Tensor,
    target: ExplainedText,
    choice: MapChoice,
    options: ExplainOptions,
) -> Explanation:
    """Maps of phrases inside their sentence: the sum over the tokens of a phrase."""
    inputs = explain.FusionInputs(
        member.model,
        target.text_embeds,
        target.attention_mask,
        image_embeds,
        target.objective,
    )
    (maps,), fused = explain.token_maps(inputs, (choice,), options.seed)
    words, read = target.tokens.words, maps[0, -len(target.word_index) :].cpu()
    if METHODS[choice.method].whole:
        spans, heat = (Span(tuple(range(len(words))), (0, len(words) - 1)),), read[:1]
    else:
        spans = tuple(Span((i,), (i, i)) for i in range(len(words)))
        if options.unit == "phrase":
            spans = needed_phrases(target.tokens)
        index = torch.tensor(target.word_index)
        heat = [read[torch.isin(index, torch.tensor(span.words))].sum(0) for span in spans]
    with torch.no_grad():
        score = target.score(fused)
    return _explanation(member, target.tokens, spans, heat, read, choice, score)


@dataclass(frozen=True)
class PhraseBatch:
    """Texts and their phrases as rows of one batch; a phrase that is its whole text has no row of
    its own.

    Attributes:
        rows: R texts, the N whole ones first.
        spans: for each whole text its phrases.
        places: for each whole text the rows of its phrases.
    """

    rows: tuple[TokenizedText, ...]
    spans: tuple[tuple[Span, ...], ...]
    places: tuple[tuple[int, ...], ...]


def lay_out(
    member: Member, texts: Sequence[TokenizedText], spans: Sequence[tuple[Span, ...]]
) -> PhraseBatch:
    """Every text, then every phrase of it that is not the whole text."""
    rows, places = list(texts), []
    for i, (tokens, parts) in enumerate(zip(texts, spans, strict=True)):
        place = []
        for span in parts:
            first, last = span.reading
            if (first, last) == (0, len(tokens.words) - 1):
                place.append(i)
                continue
            reading = tokens.text[tokens.words[first].start : tokens.words[last].end]
            place.append(len(rows))
            rows.append(member.processor.tokenize(reading))
        places.append(tuple(place))
    return PhraseBatch(tuple(rows), tuple(spans), tuple(places))


def explain_phrases(
    member: Member,
    image_embeds: Tensor,
    batches: Sequence[PhraseBatch],
    whole: MapChoice,
    part: MapChoice,
    seed: int = 0,
) -> list[tuple[list[Explanation], Tensor]]:
    """Maps of phrases that are read by themselves, all in one pass.

    Args:
        image_embeds: float[B, P, D].
        batches: the rows of each of the B images.
        whole, part: how the maps of whole texts (target `match` or `box`) and of phrases are
            computed. Without a matching head phrases are explained by their box.

    Returns:
        For each image one explanation per whole text, named after `whole`, and fused_embeds
        float[N, 1, C] of their `[CLS]`.
    """
    layered = [METHODS[choice.method].layered for choice in (whole, part)]
    if len(batches) > 1 and not all(layered):  # the other methods know one image
        return [
            explain_phrases(member, embeds, [batch], whole, part, seed)[0]
            for embeds, batch in zip(image_embeds.split(1), batches, strict=True)
        ]
    matching = "matching" in member.model.config.heads
    of_part = match_logit if matching else box_sum
    of_whole = box_sum if whole.target == "box" else match_logit
    rows = padded([batch.rows for batch in batches])
    longest = len(rows) // len(batches)
    counts = torch.tensor([len(batch.spans) for batch in batches])
    is_whole = (torch.arange(longest) < counts[:, None]).flatten().to(member.device)

    def objective(fused: Tensor) -> Tensor:
        if of_whole is of_part:
            return of_part(member, fused)
        if len(fused) < len(is_whole):  # one row of a method that reads them one by one
            return of_whole(member, fused)
        return torch.where(is_whole, of_whole(member, fused), of_part(member, fused))

    text_embeds, mask = encode_texts(member, rows)
    inputs = explain.FusionInputs(member.model, text_embeds, mask, image_embeds, objective)
    (by_whole, by_part), fused = explain.token_maps(inputs, (whole, part), seed)
    with torch.no_grad():
        matches = match_probability(member, fused).tolist() if matching else [None] * len(rows)
        scores = matches if of_whole is match_logit else box_sum(member, fused).tolist()

    def explanation(row: int, first: int, batch: PhraseBatch) -> Explanation:
        """Of the text in a row of the whole batch; `first` is the first row of its image."""
        places = [first + place for place in batch.places[row - first]]
        # What stands behind the tokens of a row is padding.
        heat = [by_part[place, : len(rows[place].ids)].float().mean(0) for place in places]
        read = by_whole[row, : len(rows[row].ids)]
        own = [matches[place] for place in places]
        spans = batch.spans[row - first]
        return _explanation(member, rows[row], spans, heat, read, whole, scores[row], own)

    found = []
    for first, batch in zip(range(0, len(rows), longest), batches, strict=True):
        end = first + len(batch.spans)
        texts = [explanation(row, first, batch) for row in range(first, end)]
        found.append((texts, fused[first:end, :1]))
    return found


def explain_alone(
    member: Member,
    image_embeds: Tensor,
    texts: Sequence[str],
    choice: MapChoice,
    options: ExplainOptions,
) -> list[Explanation]:
    """Maps of the phrases of one text for each of the images float[B, P, D], each phrase read by
    itself."""
    batches = []
    for text in texts:
        tokens = member.processor.tokenize(text)
        batches.append(lay_out(member, [tokens], [needed_phrases(tokens, options.unit)]))
    whole = replace(choice, target="match")
    if options.method is None:
        whole = member.settings.maps.phrase.changed_by(options, "match")
    found = explain_phrases(member, image_embeds, batches, whole, choice, options.seed)
    return [
        replace(explanations[0], target=choice.target, method=choice.method)
        for explanations, _ in found
    ]


def needed_phrases(tokens: TokenizedText, unit: str = "phrase") -> tuple[Span, ...]:
    """The phrases of a text, or each of their words.

    Raises:
        TextError: there is none (`text/empty`).
    """
    spans = split_phrases(tokens.text, tokens.words)
    if not spans:
        raise TextError(
            "The text names nothing that could be seen. Name a thing, for example 'the red car'.",
            "text/empty",
        )
    if unit == "phrase":
        return spans
    return tuple(Span((i,), (i, i)) for span in spans for i in span.words)


def _explanation(
    member: Member,
    tokens: TokenizedText,
    spans: Sequence[Span],
    heat: Sequence[Tensor],
    read: Tensor,
    choice: MapChoice,
    score: float,
    matches: Sequence[float | None] | None = None,
) -> Explanation:
    """`heat`: one map float[P-1] for each span, given to all its words; `read`: those of all tokens
    float[T, P-1]."""
    overall = explain.overall_map(read, member.model.config.vision.grid_size)
    maps = np.zeros((len(tokens.words), *overall.shape), np.float32)
    phrases = []
    for k, span in enumerate(spans):
        start, end = tokens.words[span.words[0]].start, tokens.words[span.words[-1]].end
        match = None if matches is None else matches[k]
        phrases.append(Phrase(tokens.text[start:end], start, end, span.words, match))
        maps[list(span.words)] = heat[k].float().view(overall.shape).cpu()
    return Explanation(
        text=tokens.text,
        words=tokens.words,
        maps=maps,
        overall=overall,
        target=choice.target,
        method=choice.method,
        layer=choice.layer,
        score=score,
        truncated_at=tokens.truncated_at,
        head=choice.head,
        phrases=tuple(phrases),
    )
