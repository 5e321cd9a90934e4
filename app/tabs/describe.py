"""Describe: a caption, its words and its rivals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, ClassVar

import gradio as gr

from x2vlm.options import CaptionOptions
from x2vlm.results import Caption

from .. import html, inputs, limits, measures
from ..i18n import say, t
from ..phrases import phrases_of
from ..state import Layer, Result, ViewState
from ..tab import Asker, HandOver, Tab, Values

OPTIONS = CaptionOptions.table()
SLIDERS = (
    ("num_beams", "num_captions"),
    ("min_length", "max_new_tokens"),
    ("top_p", "temperature"),
)
MOST = {
    "num_beams": limits.BEAMS,
    "num_captions": limits.CAPTIONS,
    "min_length": 20,
    "max_new_tokens": limits.NEW_TOKENS,
    "temperature": 2,
}
"""Where a slider ends before the option's range does."""


class Describe(Tab):
    """Captions of the image, of a video, or of the region."""

    name = "describe"
    task = "caption"
    defaults: ClassVar = {
        "decoding": "beam",
        **{name: OPTIONS[name].default for row in SLIDERS for name in row},
        "num_captions": 3,  # rivals are shown beside the best
        "min_length": 0,  # the model's own
        "seed": OPTIONS["seed"].default,
        "prefix": "",
    }
    hand_overs = (
        HandOver("to_find", "find", lambda result: {"phrases": phrases_of(result.found[0].text)}),
        HandOver(
            "to_inspect",
            "inspect",
            lambda result: {"text": result.found[0].text, "target": "caption"},
        ),
        HandOver(
            "to_match",
            "match",
            lambda result: {"texts": "\n".join(caption.text for caption in result.found)},
        ),
    )

    def build_options(self, values: Values) -> None:
        fields = self.fields
        fields["decoding"] = gr.Radio(
            [(t("beam"), "beam"), (t("sample"), "sample")],
            value=values["decoding"],
            label=t("decoding"),
        )
        for row in SLIDERS:
            with gr.Row():
                for name in row:
                    option, whole = OPTIONS[name], OPTIONS[name].kind is int
                    fields[name] = gr.Slider(
                        option.low,
                        MOST.get(name, option.high),
                        values[name],
                        step=1 if whole else 0.01,
                        label=t(name),
                    )
        with gr.Row():
            fields["seed"] = gr.Number(values["seed"], precision=0, label=t("seed"))
            fields["prefix"] = gr.Textbox(values["prefix"], label=t("prefix"), max_length=100)

    def run(self, ask: Asker, values: Values) -> Result:
        options = {name: value for name, value in values.items() if name != "decoding"}
        options = inputs.caption_options(values["decoding"] == "sample", **options)
        sure = {"sure_from": ask.info.thresholds[1]}
        if region := ask.state.region:
            frame = ask.state.video_frame
            found = ask.on_frame(frame, "describe_region", region, **options).captions
            return self.result(ask, values, "describe_region", found, box=region, **options, **sure)
        found = ask("caption", **options)
        best = ask.explain(found[0].text, use="caption") if found[0].text else None
        return self.result(ask, values, "caption", found, (best,), **options, **sure)

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        return tuple(Layer(caption.text, one) for caption, one in zip(found, maps) if one)

    def render(self, result: Result, state: ViewState) -> str:
        best = result.found[0]
        if result.layers:
            explanation = result.layers[0].explanation
            parts = [
                (word.text, measures.part_of(explanation, k), word.probability)
                for k, word in enumerate(best.words)
            ]
            tinted = f'<div class="words">{html.words(parts, 0, result.word)}</div>'
        else:
            tinted = f'<p class="caption">{escape(best.text)}</p>'
        unsure = best.match is not None and best.match < result.settings.get("sure_from", 0)
        badge = html.note("low_confidence", "warn", limit=result.settings.get("sure_from"))
        return (
            f'<div class="card caption-card">{tinted}{say("tint") if result.layers else ""}</div>'
            + (badge if unsure else "")
            + candidates(result.found)
        )

    def export(self, result: Result) -> list[dict[str, Any]]:
        return [
            {"caption": c.text, "log_probability": c.log_probability, "match": c.match}
            for c in result.found
        ]


def candidates(found: Sequence[Caption]) -> str:
    """All captions, best first, with the score that ranks them."""
    rows = [
        [
            str(k + 1),
            escape(c.text),
            html.bar(c.match),
            html.number(c.log_probability / max(len(c.tokens), 1)),
            html.number(measures.caption_rank(c)),
        ]
        for k, c in enumerate(found)
    ]
    notes = "" if found[0].finished else html.note("caption_cut", "warn")
    notes += html.note("repetitive", "warn") if found[0].repetitive else ""
    head = ["", "caption", "match", "log_prob", "ranks_by"]
    return html.table(head, rows, "captions") + html.note("ranked_by") + notes
