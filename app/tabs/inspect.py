"""Inspect: for every word, where the model looks, and whether the map is faithful."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gradio as gr

from x2vlm.results import Explanation
from x2vlm.visualize import is_flat, overlay_heatmap

from .. import controls, html, inputs, limits, measures
from ..chart import curve
from ..i18n import say, t
from ..state import Box, Layer, Preview, Result, Texts, ViewState
from ..tab import Action, Asker, HandOver, Shown, Tab, Values

TILE = 200  # pixels
MOST_TILES = 24


class Inspect(Tab):
    """Heat maps of a text, word by word."""

    name = "inspect"
    task = "explain"
    defaults: ClassVar = {
        "text": "",
        "target": "default",
        "method": "default",
        "layer": "default",
        "head": "default",
    }
    rules: ClassVar = {"text": inputs.text}
    submits = ("text",)
    hand_overs = (HandOver("to_compare", "compare", lambda result: {"text": result.found[0].text}),)

    def build_fields(self, values: Values) -> None:
        self.fields["text"] = gr.Textbox(
            values["text"], label=t("text_to_inspect"), max_length=limits.LETTERS, elem_id="text"
        )
        self.fields["target"] = gr.Radio(
            controls.targets(), value=values["target"], label=t("target"), elem_id="target"
        )

    def build_options(self, values: Values) -> None:
        self.fields["method"] = gr.Dropdown(
            controls.methods(), value=values["method"], label=t("method"), elem_id="method"
        )
        with gr.Row():
            self.fields["layer"] = gr.Dropdown(
                controls.layers(3), value=values["layer"], label=t("layer_number")
            )
            self.fields["head"] = gr.Dropdown(
                controls.heads(4), value=values["head"], label=t("head_number")
            )

    def build_result(self) -> None:
        self.check = gr.Button(t("deletion"), size="sm", elem_id="deletion")
        self.checked = gr.HTML(elem_id="faithfulness")

    def actions(self) -> tuple[Action, ...]:
        return (Action(self.check.click, self.check_deletion, (self.checked,)),)

    def suggest(self, texts: Texts) -> Values:
        return {"text": texts.text}

    def adapt(self, info: Any) -> Shown:
        return {
            self.fields["layer"]: gr.update(choices=controls.layers(info.num_layers)),
            self.fields["head"]: gr.update(choices=controls.heads(info.num_heads)),
        }

    def run(self, ask: Asker, values: Values) -> Result:
        options = {
            "target": inputs.which(values["target"]),
            "layer": inputs.which(values["layer"]),
            "head": inputs.which(values["head"]),
            "method": inputs.which(values["method"]),
        }
        found = ask("explain", inputs.text(values["text"]), **options)
        return self.result(ask, values, "explain", (found,), **options)

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        return tuple(Layer(explanation.text, explanation) for explanation in found)

    def show(self, state: ViewState | None) -> Shown:
        there = state is not None and self.name in state.results
        return super().show(state) | {self.check: gr.update(visible=there), self.checked: ""}

    def render(self, result: Result, state: ViewState) -> str:
        found: Explanation = result.found[0]
        numbers = html.note("numbers", **map_numbers(found))
        helps = f'<div class="helps">{numbers}{html.help_mark("numbers_help")}</div>'
        inside = ""
        if region := result.asked.get("region"):
            values = region_numbers(found, region, state.preview.size)
            inside = html.note("in_region", **values)
        cut = html.cut(found.text, found.truncated_at)
        return cut + word_tiles(found, state.preview, state.frame) + helps + inside + HONESTY

    def check_deletion(self, ask: Asker, values: Values) -> Shown:
        """Match while patches are removed, hottest first against at random."""
        result = ask.state.results.get(self.name)
        explanation = inputs.needed_map(result.explanation if result else None)
        frame = result.layers[result.layer].frame
        check = ask.on_frame(frame, "deletion_check", explanation)
        lines = {"by_heat": check.by_heat, "by_chance": check.by_chance}
        verdict = f"verdict_{check.verdict.replace(' ', '_')}"
        said = html.note(verdict, value=f"{check.faithfulness:+.2f}")
        band = check.chance_low, check.chance_high
        return {self.checked: said + curve(check.fractions, lines, "fraction", band=band)}

    def export(self, result: Result) -> list[dict[str, Any]]:
        found = result.found[0]
        shares = measures.heat_shares(found)
        return [
            {"word": word.text, "share": share}
            | dict(zip(("peak_x", "peak_y"), measures.peak(heat)))
            for word, share, heat in zip(found.words, shares, found.maps)
        ]


HONESTY = html.note("honesty")


def word_tiles(found: Explanation, preview: Preview, frame: int) -> str:
    """One small image for each phrase of a text, or each word where it has none, each map on its
    own scale."""
    base = preview.frames[frame].copy()
    base.thumbnail((TILE, TILE))
    parts = [(text, k, found.maps[k]) for text, k in measures.parts(found) if k is not None]
    each = [
        (f"0:{k}", base if is_flat(heat) else overlay_heatmap(base, heat, threshold=0.2), text)
        for text, k, heat in parts[:MOST_TILES]
    ]
    return html.tiles(each) + f'<p class="note">{say("small_multiples")}</p>'


def map_numbers(found: Explanation) -> dict[str, str]:
    """Score, entropy of the whole text's map, and the heat in its hottest tenth, as texts."""
    return {
        "score": html.number(found.score),
        "entropy": html.number(measures.entropy(found.overall), 1),
        "most": html.number(math.log2(found.overall.size), 1),
        "top": html.percent(measures.hottest_tenth(found.overall)),
    }


def region_numbers(found: Explanation, region: Box, size: tuple[int, int]) -> dict[str, str]:
    """Share of the whole text's heat inside a region, and the region's share of the image."""
    area = (region[2] - region[0]) * (region[3] - region[1]) / (size[0] * size[1])
    share = measures.inside(found.overall, region, size)
    return {"share": html.percent(share), "area": html.percent(area)}
