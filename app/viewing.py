"""Events that only change what is in view: no model call, no queue."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import gradio as gr

from . import cards, export
from .service.gradio_patches import results_folder
from .view import Look, Shown, focus, of_tab, present, redraw, words

RELATIONS = (
    "and|with|on|in|at|next to|near|above|below|inside|left of|right of|to the left of|to "
    "the right of"
)
SPLIT = re.compile(rf"[,;]|\b(?:{RELATIONS})\b")
OPENING = re.compile(r"^(?:there (?:is|are)|a (?:picture|photo|clip) of|is|are)\s+", re.I)


def change_look(
    shown: Shown | None,
    show: list[str],
    opacity: float,
    threshold: float,
    colormap: str,
    smooth: bool,
) -> list[Any]:
    """The view controls: look, then canvas and caption."""
    look = Look(tuple(show), opacity, threshold, colormap, smooth)
    return [look, *(redraw(shown, look)[1:] if shown else [gr.skip(), gr.skip()])]


def choose_layer(shown: Shown | None, look: Look, layer: int | None) -> list[Any]:
    """One phrase or answer alone: shown, canvas, caption, words."""
    if shown is None or layer is None or layer >= len(shown.layers) or layer == shown.layer:
        return [
            gr.skip()
        ] * 4  # also where the list follows what is in view already, such as a word
    shown = focus(shown, layer, None)
    text = words(shown)
    return [*redraw(shown, look), gr.update(value=text, visible=bool(text))]


def choose_answer(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
    """An answer in Ask's list of probabilities: the stage's values."""
    own = of_tab(shown, "ask")
    named = [k for k, layer in enumerate(own.layers) if layer.name == event.value] if own else []
    return _own(shown, look, focus(own, named[0], None) if named else None)


def choose_word(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
    """A word of the strip below the stage; its first entry stands for all words."""
    explanation = shown.explanation if shown else None
    if explanation is None or event.index > len(explanation.maps):
        return [gr.skip()] * 3
    return redraw(focus(shown, shown.layer, event.index - 1 if event.index else None), look)


def choose_own_word(tab: str) -> Callable[..., list[Any]]:
    """The event of a word of a tab's own result: of Describe's caption, or of Inspect's small
    pictures."""

    def choose(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
        """The stage's values."""
        own = of_tab(shown, tab)
        return _own(shown, look, focus(own, own.layer, event.index) if own and own.layers else None)

    return choose


def _own(shown: Shown | None, look: Look, chosen: Shown | None) -> list[Any]:
    """What was chosen of a tab's own result on the stage, or a note there that it has no map."""
    explanation = chosen.explanation if chosen else None
    if explanation and (chosen.word or 0) < len(explanation.maps):
        return present(chosen, look)
    told = cards.note("no_map", "warn") + (cards.caption(shown, look) if shown else "")
    return [*[gr.skip()] * 4, told, gr.skip()]


def remember(shown: Shown | None, history: list[list[Any]]) -> Any:
    """The questions asked so far, newest first, at most ten."""
    asked = of_tab(shown, "ask")
    if asked is None:  # another answer came at the same moment
        return gr.skip()
    found = asked.results[0]
    rows = [row for row in history if any(row)]
    probability = round(found.answers[0].probability, 3) if found.answers else 0.0
    return [[found.question, found.best, probability], *rows][:10]


def choose_frame(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
    """A frame of the clip, from the strip of frames or the curve over time."""
    if shown is None or not 0 <= event.index < len(shown.seen.frames):
        return [gr.skip()] * 3
    return redraw(dataclasses.replace(shown, frame=event.index), look)


def draw_region(event: gr.SelectData) -> list[int]:
    """The sides of a region drawn on the canvas."""
    return list(event.index)


def no_region() -> list[int]:
    """Empty sides."""
    return [0] * 4


def phrases_of(caption: str) -> str:
    """The noun-like parts of a caption, one a line."""
    parts = (OPENING.sub("", part.strip(" .")).strip() for part in SPLIT.split(caption))
    return "\n".join(dict.fromkeys(part for part in parts if part))


def caption_to_find(shown: Shown | None) -> list[Any]:
    """Hand the caption's things to Find."""
    return [phrases_of(_text(shown, "describe")) or gr.skip(), gr.update(selected="find")]


def text_to_inspect(tab: str) -> Callable[[Shown | None], list[Any]]:
    """The event that hands a tab's caption, question, phrase or best text to Inspect, with the
    target that fits."""
    target = {"describe": "caption", "ask": "answer", "find": "box", "match": "match"}[tab]

    def hand_over(shown: Shown | None) -> list[Any]:
        return [_text(shown, tab) or gr.skip(), target, gr.update(selected="inspect")]

    return hand_over


def caption_to_match(shown: Shown | None, texts: str) -> list[Any]:
    """Put the caption above the texts of Match."""
    return [
        "\n".join(dict.fromkeys([_text(shown, "describe"), *texts.split("\n")])).strip(),
        gr.update(selected="match"),
    ]


def _text(shown: Shown | None, tab: str) -> str:
    """What a tab's latest result is about, of phrases the one in view; empty where it has none."""
    shown = of_tab(shown, tab)
    first = shown.results[shown.layer if tab == "find" else 0] if shown and shown.results else None
    return next(
        (getattr(first, name) for name in ("text", "question", "phrase") if hasattr(first, name)),
        "",
    )


def make_files(shown: Shown | None, look: Look) -> Any:
    """The downloads of the present result."""
    if shown is None:
        return gr.skip()
    folder = results_folder()
    return gr.update(value=export.write_files(shown, look, methods(shown), folder), visible=True)


def methods(shown: Shown) -> str:
    """One sentence for a paper: model, weights, method, layer, normalisation, frames."""
    settings = ", ".join(
        f"{key} {value}" for key, value in shown.settings.items() if key != "model"
    )
    frames = (
        f"; frames {', '.join(map(str, shown.seen.indices))}" if shown.seen.kind == "video" else ""
    )
    maps = ""
    if explanation := shown.explanation:
        layer = (
            "default layer" if explanation.layer is None else f"fusion layer {explanation.layer}"
        )
        maps = (
            f"; maps: {explanation.method}, {layer}, target {explanation.target}, one scale for "
            "all words"
        )
    return (
        f"X2-VLM ({shown.settings.get('model', '')}), task {shown.task or 'none'} "
        f"({settings or 'defaults'}){maps}{frames}."
    )


def link_to(shown: Shown | None) -> list[Any]:
    """The query string that reopens an example or scene."""
    if shown is None or not shown.origin:
        return [
            gr.update(value="", visible=False),
            gr.update(value=cards.note("uploads_not_linked"), visible=True),
        ]
    return [gr.update(value=shown.origin, visible=True), gr.update(visible=False)]


def show_source(kind: str) -> list[Any]:
    """The uploader of pictures or of clips."""
    return [gr.update(visible=kind == "image"), gr.update(visible=kind == "video")]
