"""The stage: image, heat, boxes, legend and words of the result in view, drawn from kept results
without the model."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from x2vlm.visualize import draw_boxes, overlay_heatmap

from . import html, measures
from .components import Canvas, Pick
from .i18n import say, t
from .state import ViewOptions, ViewState

COLORMAPS = ["viridis", "cividis", "magma", "gray"]
SHOWN = (("box_layer", "box"), ("heat_layer", "heat"), ("absent_layer", "absent"))


def draw(state: ViewState, options: ViewOptions) -> Image.Image:
    """The image of the frame in view with the heat and boxes of the result in view."""
    image = state.preview.frames[state.frame]
    if "heat" in options.show and state.heat is not None and not state.flat:
        image = overlay_heatmap(
            image,
            state.heat,
            options.opacity,
            options.colormap,
            state.heat_range(options.one_scale),
            options.threshold,
            options.smooth,
        )
    return _with_boxes(image, state, options) if "box" in options.show else image


def _with_boxes(image: Image.Image, state: ViewState, options: ViewOptions) -> Image.Image:
    absent_too = "absent" in options.show
    found = [(k, g) for k, g in state.found if absent_too or g.verdict != "absent"]
    if not found:
        return image
    scale = image.width / state.preview.size[0], image.height / state.preview.size[1]
    return draw_boxes(
        image,
        [tuple(side * scale[i % 2] for i, side in enumerate(g.box_xyxy)) for _, g in found],
        labels=[found[0][1].phrase] if len(state.layers) == 1 else None,
        dashed=[g.verdict == "absent" for _, g in found],
        numbers=[k + 1 for k, _ in found],
    )


def canvas_value(state: ViewState, options: ViewOptions) -> dict[str, Any]:
    """What the canvas takes: a lossless image, its size and region in the user's pixels, and the
    words that a screen reader says."""
    width, height = state.preview.size
    region = state.region and [
        side / (height if k % 2 else width) for k, side in enumerate(state.region)
    ]
    return {
        "src": html.image_source(draw(state, options)),
        "size": [width, height],
        "alt": html.plain(html.in_words(state)),
        "region": region,
    }


def choices(state: ViewState) -> str:
    """The layers of the result in view, and the words of the one in view."""
    result = state.result
    if result is None:
        return ""
    parts = []
    if len(result.layers) > 1:
        each = [
            html.pick(f"{k}:", html.badge(k) + escape(layer.name), k == result.layer, "word layer")
            for k, layer in enumerate(result.layers)
        ]
        parts.append(f'<div class="words layers">{"".join(each)}</div>')
    if explanation := result.explanation:
        shares = measures.heat_shares(explanation)
        whole = html.pick(f"{result.layer}:", say("whole_text"), result.word is None, "word whole")
        each = html.words(
            [
                (text, k, None if k is None else shares[k])
                for text, k in measures.parts(explanation)
            ],
            result.layer,
            result.word,
        )
        parts.append(f'<div class="words">{whole}{each}</div>')
    return "".join(parts)


def legend(state: ViewState, options: ViewOptions) -> str:
    """The colours of the map in view, and what is odd about image or result."""
    parts = []
    if "heat" in options.show and state.heat is not None and not state.flat:
        low, high = state.heat_range(options.one_scale)
        shared = options.one_scale and state.result.word is not None
        scale = say("one_scale_legend" if shared else "own_scale", what=html.map_name(state))
        parts.append(
            f'<div class="legend"><span>{low:.3g}</span><span class="ramp {options.colormap}">'
            f'</span><span>{high:.3g}</span><span class="note">{scale}</span></div>'
        )
    if state.flat:
        parts.append(html.note("flat"))
    if state.result is None:
        parts.append(html.note("nothing_asked"))
    parts += [html.remark(text) for text in state.preview.notes]
    spoken = f'<p class="hidden-text" role="status">{html.in_words(state)}</p>'
    return "".join(parts) + spoken


class Stage:
    """The stage's components. `show` gives all their values for a state, `redraw` those that a
    change of view touches."""

    def build(self) -> None:
        self.canvas = Canvas(elem_id="canvas")
        self.choices = Pick(elem_id="choices")
        self.legend = gr.HTML(elem_id="legend")
        self.data = gr.JSON(label=t("json"), buttons=["copy"], open=False, elem_id="json")
        self.data.unrender()

    def build_options(self) -> None:
        """The view controls, in the order of the fields of `ViewOptions`."""
        start = ViewOptions()
        with gr.Accordion(t("view"), open=False, elem_id="view"):
            with gr.Row():
                show = gr.CheckboxGroup(
                    [(t(key), value) for key, value in SHOWN],
                    value=list(start.show),
                    label=t("show"),
                    elem_id="show",
                )
                colormap = gr.Dropdown(
                    COLORMAPS, value=start.colormap, label=t("colormap"), elem_id="colormap"
                )
            with gr.Row():
                opacity = gr.Slider(
                    0, 1, start.opacity, step=0.05, label=t("opacity"), elem_id="opacity"
                )
                threshold = gr.Slider(
                    0, 1, start.threshold, step=0.05, label=t("threshold"), elem_id="threshold"
                )
            with gr.Row():
                smooth = gr.Checkbox(start.smooth, label=t("smooth"))
                one_scale = gr.Checkbox(start.one_scale, label=t("one_scale"), elem_id="one-scale")
        self.controls = {
            "show": show,
            "opacity": opacity,
            "threshold": threshold,
            "colormap": colormap,
            "smooth": smooth,
            "one_scale": one_scale,
        }

    def options(self, values: dict[Any, Any]) -> ViewOptions:
        """The view options of the controls' values."""
        chosen = {name: values[control] for name, control in self.controls.items()}
        return dataclasses.replace(ViewOptions(**chosen), show=tuple(chosen["show"]))

    def redraw(self, state: ViewState, options: ViewOptions) -> dict[Any, Any]:
        return {
            self.canvas: canvas_value(state, options),
            self.legend: legend(state, options),
        }

    def show(self, state: ViewState | None, options: ViewOptions) -> dict[Any, Any]:
        if state is None:
            empty = html.note("empty_stage", "empty")
            return {self.canvas: None, self.choices: "", self.legend: empty, self.data: None}
        return self.redraw(state, options) | {
            self.choices: choices(state),
            self.data: state.to_dict(),
        }
