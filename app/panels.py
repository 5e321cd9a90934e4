"""What each tab shows for a result, or its empty state: the same for a fresh answer, a stored
example and a new scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from x2vlm.results import Answers, Caption, Explanation, Grounding, Match
from x2vlm.visualize import FLAT, heat_range, is_flat, overlay_heatmap

from . import cards
from .state import Preview
from .view import Layer

CLOSE = 0.15  # two best answers nearer than this get a note
THUMBNAIL = 240
MOST_WORDS = 24


def describe(found: Sequence[Caption] | None) -> list[Any]:
    """Values for the tinted caption and the table of candidates."""
    if not found:
        return [gr.update(value=[], visible=False), empty("describe")]
    tinted = [(word.text, word.probability) for word in found[0].words]
    return [gr.update(value=tinted, visible=True), cards.captions(tuple(found))]


def ask(found: Answers | None, from_region: bool = False) -> list[Any]:
    """Values for the answer and its probabilities."""
    if not found:
        return [empty("ask"), gr.update(value=None, visible=False)]
    probable = [answer.probability for answer in found.answers]
    close = len(probable) > 1 and probable[0] - probable[1] < CLOSE
    weak = (
        found.best in ("yes", "no")
        or found.best.isdigit()
        or found.question.lower().startswith("how many")
    )
    card = cards.answer(found.question, found.best or "–", close, weak, found.truncated_at)
    card += cards.note("region_answer") if from_region else ""
    named = {
        answer.text: answer.probability for answer in found.answers
    }  # none where the model wrote none
    return [card, gr.update(value=named or None, visible=bool(named))]


def find(
    found: Sequence[Grounding] | None,
    size: tuple[int, int] = (1, 1),
    box: tuple[float, ...] | None = None,
) -> list[Any]:
    """Value for the table of phrases; with a region, each box's overlap with it."""
    if not found:
        return [empty("find")]
    return [
        cards.findings(tuple(found), size, [iou(g.box_xyxy, box) for g in found] if box else None)
    ]


def inspect(found: Explanation | None, seen: Preview | None = None, frame: int = 0) -> list[Any]:
    """Values for the map's numbers and for one small picture a word."""
    if not found:
        return [empty("inspect"), gr.update(value=None, visible=False)]
    limits = heat_range(found.maps)
    base = seen.frames[frame].copy()
    base.thumbnail((THUMBNAIL, THUMBNAIL))
    pictures = [
        (overlay_heatmap(base, heat, value_range=limits) if not is_flat(heat) else base, word.text)
        for word, heat in zip(found.words[:MOST_WORDS], found.maps)
    ]
    card = cards.note("numbers", **map_numbers(found)) + cards.note("honesty")
    if found.truncated_at:
        card = (
            cards.note("cut", "warn", at=found.truncated_at, text=found.text[: found.truncated_at])
            + card
        )
    return [card, gr.update(value=pictures, visible=True)]


def match(found: Sequence[Match] | None) -> list[Any]:
    """Value for the texts, best first."""
    return [cards.matches(ranked(found)) if found else empty("match")]


def everything(results: dict[str, Any], seen: Preview | None = None) -> list[Any]:
    """Values for all tabs, in their order."""
    size = seen.size if seen else (1, 1)
    return [
        *describe(results.get("caption")),
        *ask(results.get("answer")),
        *find(results.get("ground"), size),
        *inspect(results.get("explain"), seen),
        *match(results.get("match")),
    ]


def empty(tab: str) -> str:
    return cards.note(f"empty_{tab}", "empty")


def map_numbers(found: Explanation) -> dict[str, str]:
    """Score, entropy of the whole text's map in bits, and the share of heat in its hottest
    tenth."""
    heat = np.sort(found.overall.clip(min=0).ravel())[::-1]
    total = heat.sum()
    share = heat / total if total > FLAT else np.full(heat.size, 1 / heat.size)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    top = share[: max(1, heat.size // 10)].sum()
    return {
        "score": cards.number(found.score),
        "entropy": cards.number(float(entropy), 1),
        "most": cards.number(float(np.log2(heat.size)), 1),
        "top": cards.percent(float(top)),
    }


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes (x1, y1, x2, y2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / (area - inner) if area > inner else 0.0


def ranked(found: Sequence[Match]) -> tuple[Match, ...]:
    """Best first by match, or by similarity where the model has no matching head."""
    return tuple(
        sorted(
            found,
            key=lambda m: m.probability if m.probability is not None else m.similarity or 0.0,
            reverse=True,
        )
    )


def layers(task: str, found: Any) -> tuple[Layer, ...]:
    """What of a stored result can be shown alone on the stage."""
    if task == "ground":
        return tuple(Layer(g.phrase, g.explanation, g) for g in found)
    return (Layer(found.text, found),) if task == "explain" else ()
