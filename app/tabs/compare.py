"""Compare: two maps of one image beside each other, of two texts, models, methods or layers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, ClassVar

import gradio as gr

from x2vlm.errors import CheckpointError
from x2vlm.options import METHODS
from x2vlm.results import Explanation, Grounding
from x2vlm.visualize import is_flat, overlay_heatmap

from .. import controls, html, inputs, limits, measures
from ..i18n import say, t
from ..state import Layer, Result, Texts, ViewState
from ..tab import Asker, Choices, Shown, Tab, Values

SAME = "same"
SIDE = 440  # pixels


class Compare(Tab):
    """Two explanations with their numbers: A is the page's model, B differs in what is chosen."""

    name = "compare"
    task = "explain"
    tours = False
    defaults: ClassVar = {
        "text": "",
        "other_text": "",
        "other_model": SAME,
        "method": "default",
        "other_method": "random",
        "layer": "default",
        "other_layer": "default",
    }
    rules: ClassVar = {"text": inputs.text}

    def offer(self, models: Choices) -> None:
        self.models = [(t("same_model"), SAME), *models]

    def build_fields(self, values: Values) -> None:
        self.fields["text"] = gr.Textbox(
            values["text"], label=t("text_a"), max_length=limits.LETTERS, elem_id="compare-text"
        )
        with gr.Row():
            self.fields["method"] = gr.Dropdown(
                controls.methods(), value=values["method"], label=t("method_a")
            )
            self.fields["other_method"] = gr.Dropdown(
                controls.methods(),
                value=values["other_method"],
                label=t("method_b"),
                elem_id="other-method",
            )

    def build_options(self, values: Values) -> None:
        self.fields["other_text"] = gr.Textbox(
            values["other_text"],
            label=t("text_b"),
            max_length=limits.LETTERS,
            elem_id="other-text",
        )
        with gr.Row():
            for name, key in (("layer", "layer_a"), ("other_layer", "layer_b")):
                self.fields[name] = gr.Dropdown(
                    controls.layers(3), value=values[name], label=t(key)
                )
        self.fields["other_model"] = gr.Dropdown(
            self.models,
            value=values["other_model"],
            label=t("model_b"),
            allow_custom_value=True,
            elem_id="other-model",
        )

    def suggest(self, texts: Texts) -> Values:
        return {"text": texts.text, "other_text": ""}

    def adapt(self, info: Any) -> Shown:
        choices = gr.update(choices=controls.layers(info.num_layers))
        return {self.fields[name]: choices for name in ("layer", "other_layer")}

    def run(self, ask: Asker, values: Values) -> Result:
        other = ask.model if values["other_model"] == SAME else values["other_model"]
        text = inputs.text(values["text"])
        other_text = values["other_text"].strip() or text
        sides = (
            (ask.model, text, values["method"], values["layer"]),
            (other, other_text, values["other_method"], values["other_layer"]),
        )
        found: list[Any] = []
        names = []
        for model, asked, method, layer in sides:
            options = {"method": inputs.which(method), "layer": inputs.which(layer)}
            found.append(ask.of_model(model, None, "explain", asked, **options))
            found.append(self.box(ask, model, asked))
            names.append(f"{model} · {asked} · {method} · {layer}")
        return self.result(
            ask, values, "compare", [one for one in found if one], a=names[0], b=names[1]
        )

    @staticmethod
    def box(ask: Asker, model: str, text: str) -> Grounding | None:
        """Where a side's model finds the text; None where it has no box head."""
        try:
            frame = ask.state.video_frame
            return ask.of_model(model, None, "ground", [text], explain=False, frame=frame)[0]
        except CheckpointError:
            return None

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        made = []
        for k, one in enumerate(found):
            if isinstance(one, Explanation):
                after = found[k + 1] if k + 1 < len(found) else None
                box = after if isinstance(after, Grounding) else None
                made.append(Layer(f"{'AB'[len(made)]}: {one.text}", one, box))
        return tuple(made)

    def render(self, result: Result, state: ViewState) -> str:
        model, other = result.asked["model"], result.asked["other_model"]
        models = (model, model if other == SAME else other)
        figures = "".join(
            figure(layer, state, models[k], k, result.layer == k)
            for k, layer in enumerate(result.layers)
        )
        return f'<div class="pair">{figures}</div>' + numbers(result.layers)

    def export(self, result: Result) -> list[dict[str, Any]]:
        return [
            {"side": "ab"[k], "text": layer.explanation.text, "method": layer.explanation.method}
            | {"layer": layer.explanation.layer, "score": layer.explanation.score}
            | {"entropy": measures.entropy(layer.explanation.overall)}
            for k, layer in enumerate(result.layers)
        ]


def figure(layer: Layer, state: ViewState, model: str, k: int, chosen: bool) -> str:
    """One side: its map over the image, and what made it."""
    image = state.preview.frames[state.frame].copy()
    image.thumbnail((SIDE, SIDE))
    found = layer.explanation
    if not is_flat(found.overall):
        image = overlay_heatmap(image, found.overall, 0.55, threshold=0.2)
    shown = html.thumbnail(image, SIDE, f"{model} · {found.text}")
    made = [f"<b>{'AB'[k]}</b> {escape(model)}", escape(found.text)]
    made.append(say(controls.method_key(found.method)))
    if METHODS[found.method].layered:
        depth = say("mean_of_all") if found.layer is None else str(found.layer)
        made.append(f"{say('layer_number')}: {depth}")
    return html.pick(f"{k}:", f"{shown}<span>{' · '.join(made)}</span>", chosen, "tile side")


def numbers(layers: Sequence[Layer]) -> str:
    """The numbers of both sides beside each other, and how far they agree."""
    maps = [layer.explanation for layer in layers]
    boxes = [layer.grounding for layer in layers]
    rows = [
        [say("score"), *(html.number(one.score) for one in maps)],
        [say("match"), *(html.number(box.match) if box else "–" for box in boxes)],
        [say("peak"), *(_place(measures.peak(one.overall)) for one in maps)],
        [say("entropy"), *(html.number(measures.entropy(one.overall), 1) for one in maps)],
        [say("top_tenth"), *(html.percent(measures.hottest_tenth(one.overall)) for one in maps)],
    ]
    same = measures.correlation(maps[0].overall, maps[1].overall)
    overlap = html.number(measures.iou(boxes[0].box_xyxy, boxes[1].box_xyxy)) if all(boxes) else "–"
    agree = html.note("agree", correlation=html.number(same), iou=overlap)
    helps = f'<div class="helps">{agree}{html.help_mark("numbers_help")}</div>'
    return html.table(["", "side_a", "side_b"], rows, "compared") + helps


def _place(place: tuple[float, float]) -> str:
    return f"{html.percent(place[0])} → {html.percent(place[1])} ↓"
