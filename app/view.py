"""What the stage shows: picture, heat, boxes, legend and their text twin, drawn from kept results
without the model."""

from __future__ import annotations

import base64
import dataclasses
import io
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from x2vlm.errors import MediaError
from x2vlm.results import Explanation, Grounding
from x2vlm.visualize import FLAT, draw_boxes, heat_range, is_flat, overlay_heatmap

from . import cards
from .state import MediaRef, Preview

TAB = {
    "caption": "describe",
    "describe_region": "describe",
    "answer": "ask",
    "answer_region": "ask",
    "ground": "find",
    "explain": "inspect",
    "match": "match",
    "match_region": "match",
}
"""Task of a result -> the tab that shows it."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One thing that can be shown alone: a phrase, an answer or a sentence, with its map and box
    where it has them."""

    name: str
    explanation: Explanation | None = None
    grounding: Grounding | None = None

    @property
    def frame(self) -> int | None:
        """The frame of a clip that map and box are of; None where they are of all that is seen."""
        return self.grounding.frame if self.grounding else None


@dataclass(frozen=True, eq=False)
class Shown:
    """The present result: what was asked, of which media, what came out, and which part of it is in
    view.

    Attributes:
        origin: query string of a link that reopens it; empty for uploads.
        kept: tab -> task, results, layers and settings of its latest result, for what is chosen in
            that tab.
    """

    media: MediaRef
    seen: Preview
    origin: str = ""
    task: str = ""
    layers: tuple[Layer, ...] = ()
    results: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    layer: int = 0
    word: int | None = None
    frame: int = 0
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def clip_frame(self) -> int | None:
        """The frame in view of a clip; None for a picture."""
        return self.frame if self.seen.kind == "video" else None

    @property
    def found(self) -> list[tuple[int, Grounding]]:
        """The boxes of the frame in view, each after its phrase's number from 0."""
        here = (None, self.frame)
        return [
            (k, layer.grounding)
            for k, layer in enumerate(self.layers)
            if layer.grounding and layer.frame in here
        ]

    @property
    def explanation(self) -> Explanation | None:
        """That of the layer in view; None where it has no map."""
        explanation = self.layers[self.layer].explanation if self.layers else None
        return explanation if explanation is not None and len(explanation.maps) else None

    @property
    def heat(self) -> np.ndarray | None:
        """float32 (grid, grid): the map in view, of one word or of the whole text; None where it is
        another frame's."""
        if self.explanation is None or self.layers[self.layer].frame not in (None, self.frame):
            return None
        return self.explanation.overall if self.word is None else self.explanation.maps[self.word]

    @property
    def heat_range(self) -> tuple[float, float]:
        """The scale of the map in view: one for all words of a text, so that they compare; its own
        for the whole text."""
        return heat_range(self.heat if self.word is None else self.explanation.maps)

    @property
    def flat(self) -> bool:
        """The map in view has no contrast; that is said, not stretched to full colour."""
        return self.heat is not None and is_flat(self.heat)

    def to_dict(self) -> dict[str, Any]:
        """Everything but pixels and maps, for the page's JSON and the download."""
        results = [_without_maps(result.to_dict()) for result in self.results]
        media = {"name": self.seen.name, "kind": self.seen.kind, "size": list(self.seen.size)}
        if self.seen.kind == "video":
            media |= {
                "frames": list(self.seen.indices),
                "times": [round(time, 3) for time in self.seen.times],
            }
        return {"task": self.task, "media": media, "settings": self.settings, "results": results}


@dataclass(frozen=True)
class Look:
    """The view controls."""

    show: tuple[str, ...] = ("box", "heat")
    opacity: float = 0.55
    threshold: float = 0.2
    colormap: str = "viridis"
    smooth: bool = True


def _without_maps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_maps(item) for key, item in value.items() if key != "maps"}
    return [_without_maps(item) for item in value] if isinstance(value, list) else value


def with_result(
    shown: Shown,
    task: str,
    results: tuple[Any, ...],
    layers: tuple[Layer, ...],
    settings: dict[str, Any],
) -> Shown:
    """A fresh result in view, and kept for its tab."""
    fields = {"task": task, "results": results, "layers": layers, "settings": settings}
    return dataclasses.replace(
        shown, **fields, layer=0, word=None, kept=shown.kept | {TAB[task]: fields}
    )


def of_tab(shown: Shown | None, tab: str) -> Shown | None:
    """A tab's latest result in view; None where it has none."""
    if shown is None or tab not in shown.kept:
        return None
    return (
        shown
        if TAB[shown.task] == tab
        else dataclasses.replace(shown, **shown.kept[tab], layer=0, word=None)
    )


def focus(shown: Shown, layer: int, word: int | None) -> Shown:
    """One layer or word of it in view, in the frame that it is of."""
    frame = shown.layers[layer].frame
    return dataclasses.replace(
        shown, layer=layer, word=word, frame=shown.frame if frame is None else frame
    )


def draw(shown: Shown, look: Look) -> Image.Image:
    """The stage's picture."""
    picture = shown.seen.frames[shown.frame]
    if "heat" in look.show and shown.heat is not None and not shown.flat:
        picture = overlay_heatmap(
            picture,
            shown.heat,
            look.opacity,
            look.colormap,
            shown.heat_range,
            look.threshold,
            look.smooth,
        )
    if "box" in look.show:
        picture = _with_boxes(picture, shown)
    return picture


def _with_boxes(picture: Image.Image, shown: Shown) -> Image.Image:
    found = shown.found
    if not found:
        return picture
    scale = picture.width / shown.seen.size[0], picture.height / shown.seen.size[1]
    boxes = [tuple(side * scale[i % 2] for i, side in enumerate(g.box_xyxy)) for _, g in found]
    return draw_boxes(
        picture,
        boxes,
        labels=[found[0][1].phrase] if len(shown.layers) == 1 else None,
        dashed=[g.verdict == "absent" for _, g in found],
        numbers=[k + 1 for k, _ in found],
    )


def words(shown: Shown) -> list[tuple[str, float | None]]:
    """The sentence in view, each word with its share of the heat; an entry for all words first."""
    explanation = shown.explanation
    if explanation is None:
        return []
    heat = explanation.maps.clip(min=0).sum(axis=(1, 2))
    share = heat / heat.max() if heat.max() > FLAT else np.zeros(len(heat))
    return [
        ("◎", None),
        *((word.text, round(float(value), 3)) for word, value in zip(explanation.words, share)),
    ]


def canvas_value(shown: Shown, look: Look) -> dict[str, Any]:
    """What the canvas takes: a lossless picture, its size in the user's pixels, and the words a
    screen reader says."""
    stream = io.BytesIO()
    draw(shown, look).save(stream, "PNG", compress_level=1)
    source = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    return {"src": source, "size": list(shown.seen.size), "alt": cards.plain(cards.twin(shown))}


def present(shown: Shown, look: Look) -> list[Any]:
    """Values for the stage's outputs: shown, canvas, layers, words, caption, data."""
    names = [(f"{k + 1}  {layer.name}", k) for k, layer in enumerate(shown.layers)]
    layers = gr.update(choices=names, value=shown.layer if names else None, visible=len(names) > 1)
    text = words(shown)
    strip = gr.update(value=text, visible=bool(text))
    return [
        shown,
        canvas_value(shown, look),
        layers,
        strip,
        cards.caption(shown, look),
        shown.to_dict(),
    ]


def redraw(shown: Shown, look: Look) -> list[Any]:
    """Values for what a change of view touches: shown, canvas, caption."""
    return [shown, canvas_value(shown, look), cards.caption(shown, look)]


def loaded(shown: Shown | None) -> Shown:
    """What is shown, if anything is.

    Raises:
        MediaError: the stage is empty (`image/empty`).
    """
    if shown is None:
        raise MediaError(
            "Add a picture or a clip first: drop it on the stage, or take an example.",
            "image/empty",
        )
    return shown
