"""Events that only change what is in view: no model call, no queue."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from . import cards, export, limits
from .view import Look, Shown, redraw, words

RELATIONS = "and|with|on|in|at|next to|near|above|below|inside|left of|right of|to the left of|to the right of"
SPLIT = re.compile(rf"[,;]|\b(?:{RELATIONS})\b")
OPENING = re.compile(r"^(?:there (?:is|are)|a (?:picture|photo|clip) of|is|are)\s+", re.I)


def change_look(
    shown: Shown | None, show: list[str], opacity: float, threshold: float, colormap: str, smooth: bool
) -> list[Any]:
    """The view controls: look, then canvas and caption."""
    look = Look(tuple(show), opacity, threshold, colormap, smooth)
    return [look, *(redraw(shown, look)[1:] if shown else [gr.skip(), gr.skip()])]


def choose_layer(shown: Shown | None, look: Look, layer: int | None) -> list[Any]:
    """One phrase or answer alone: shown, canvas, caption, words."""
    if shown is None or layer is None or layer >= len(shown.layers):
        return [gr.skip()] * 4
    shown = dataclasses.replace(shown, layer=layer, word=None)
    text = words(shown)
    return [*redraw(shown, look), gr.update(value=text, visible=bool(text))]


def choose_answer(shown: Shown | None, event: gr.SelectData) -> Any:
    """An answer chosen in the list of probabilities: its layer number for the stage."""
    names = [layer.name for layer in shown.layers] if shown else []
    return names.index(event.value) if event.value in names else gr.skip()


def choose_word(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
    """A word of the strip below the stage; its first entry stands for all words."""
    return _word(shown, look, event.index - 1 if event.index else None)


def _word(shown: Shown | None, look: Look, word: int | None) -> list[Any]:
    explanation = shown.explanation if shown else None
    if explanation is None or (word is not None and word >= len(explanation.maps)):
        return [gr.skip()] * 3
    return redraw(dataclasses.replace(shown, word=word), look)


def choose_own_word(shown: Shown | None, look: Look, event: gr.SelectData) -> list[Any]:
    """A word of the caption itself, or of the small pictures."""
    return _word(shown, look, event.index)


def remember(shown: Shown, history: list[list[Any]]) -> list[list[Any]]:
    """The questions asked so far, newest first, at most ten."""
    found = shown.results[0]
    rows = [row for row in history if any(row)]
    return [[found.question, found.best, round(found.answers[0].probability, 3)], *rows][:10]


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
    return [phrases_of(_text(shown)), gr.update(selected="find")]


def text_to_inspect(shown: Shown | None) -> list[Any]:
    """Hand the caption, question or best text to Inspect, with the target that fits."""
    target = {"caption": "caption", "answer": "answer", "ground": "box"}.get(shown.task if shown else "", "match")
    return [_text(shown), target, gr.update(selected="inspect")]


def caption_to_match(shown: Shown | None, texts: str) -> list[Any]:
    """Put the caption above the texts of Match."""
    return ["\n".join(dict.fromkeys([_text(shown), *texts.split("\n")])).strip(), gr.update(selected="match")]


def _text(shown: Shown | None) -> str:
    first = shown.results[shown.layer if shown.task == "ground" else 0] if shown and shown.results else None
    return next((getattr(first, name) for name in ("text", "question", "phrase") if hasattr(first, name)), "")


def make_files(shown: Shown | None, look: Look) -> Any:
    """The downloads of the present result."""
    if shown is None:
        return gr.skip()
    folder = Path(tempfile.mkdtemp(dir=limits.temp_folder()))
    return gr.update(value=export.write_files(shown, look, methods(shown), folder), visible=True)


def methods(shown: Shown) -> str:
    """One sentence for a paper: model, weights, method, layer, normalisation, frames."""
    settings = ", ".join(f"{key} {value}" for key, value in shown.settings.items() if key != "model")
    frames = f"; frames {', '.join(map(str, shown.seen.indices))}" if shown.seen.kind == "video" else ""
    maps = ""
    if explanation := shown.explanation:
        layer = "default layer" if explanation.layer is None else f"fusion layer {explanation.layer}"
        maps = f"; maps: {explanation.method}, {layer}, target {explanation.target}, one scale for all words"
    return f"X2-VLM ({shown.settings.get('model', '')}), task {shown.task or 'none'} ({settings or 'defaults'}){maps}{frames}."


def link_to(shown: Shown | None) -> list[Any]:
    """The query string that reopens an example or scene."""
    if shown is None or not shown.origin:
        return [gr.update(visible=False), gr.update(value=cards.note("uploads_not_linked"), visible=True)]
    return [gr.update(value=shown.origin, visible=True), gr.update(visible=False)]


def show_source(kind: str) -> list[Any]:
    """The uploader of pictures or of clips."""
    return [gr.update(visible=kind == "image"), gr.update(visible=kind == "video")]
