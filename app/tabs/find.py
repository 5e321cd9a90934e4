"""Find: box, heat, match and verdict of every phrase on one image."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from x2vlm.media import write_video
from x2vlm.results import Grounding
from x2vlm.visualize import annotate_frames

from .. import html, inputs, limits, measures
from ..i18n import say, t
from ..service.gradio_patches import results_folder
from ..state import Layer, Result, Texts, ViewState
from ..tab import Action, Asker, HandOver, Shown, Tab, Values

SMALL, LARGE = 0.001, 0.995  # shares of the image; a box outside them says little


class Find(Tab):
    """Phrases to boxes, each with a verdict whether it is there at all."""

    name = "find"
    task = "ground"
    defaults: ClassVar = {
        "phrases": "",
        "absent_below": limits.ABSENT_BELOW,
        "found_from": limits.FOUND_FROM,
    }
    rules: ClassVar = {"phrases": inputs.phrases}
    hand_overs = (
        HandOver(
            "to_inspect",
            "inspect",
            lambda result: {"text": result.found[result.layer].phrase, "target": "default"},
        ),
    )

    def build_fields(self, values: Values) -> None:
        self.fields["phrases"] = gr.Textbox(
            values["phrases"],
            label=t("phrases"),
            placeholder=t("phrases_hint"),
            lines=3,
            max_length=limits.LETTERS,
            elem_id="phrases",
        )

    def build_options(self, values: Values) -> None:
        with gr.Row():
            for name, key in (("absent_below", "absent_at"), ("found_from", "present_at")):
                self.fields[name] = gr.Slider(
                    0, 1, values[name], step=0.01, label=t(key), elem_id=name.replace("_", "-")
                )

    def build_result(self) -> None:
        self.annotate = gr.Button(t("annotate"), size="sm", visible=False, elem_id="annotate")
        self.annotated = gr.Video(
            visible=False, interactive=False, label=t("annotated"), elem_id="annotated"
        )

    def actions(self) -> tuple[Action, ...]:
        return (Action(self.annotate.click, self.annotate_video, (self.annotated,)),)

    def suggest(self, texts: Texts) -> Values:
        return {"phrases": texts.phrases}

    def own(self, info: Any) -> Values:
        return dict(zip(("absent_below", "found_from"), info.thresholds))

    def run(self, ask: Asker, values: Values) -> Result:
        asked = inputs.phrases(values["phrases"])
        options = {
            "thresholds": inputs.thresholds(values["absent_below"], values["found_from"]),
            "frame": ask.state.video_frame,
        }
        found = ask("ground", asked, explain=True, **options)
        return self.result(ask, values, "ground", found, **options)

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        return tuple(Layer(g.phrase, g.explanation, g) for g in found)

    def show(self, state: ViewState | None) -> Shown:
        video = state is not None and state.is_video
        return super().show(state) | {
            self.annotate: gr.update(visible=video),
            self.annotated: gr.update(value=None, visible=False),
        }

    def render(self, result: Result, state: ViewState) -> str:
        return findings(result.found, state.preview.size, result.asked.get("region"))

    def annotate_video(self, ask: Asker, values: Values) -> Shown:
        """The seen frames with their boxes, as an H.264 video that plays as long as the
        original."""
        found = ask("ground_frames", inputs.phrases(values["phrases"]))
        preview = ask.state.preview
        scale = [preview.frames[0].size[k] / preview.size[k] for k in (0, 1)] * 2
        drawn = annotate_frames(
            preview.frames,
            [[scaled(g, scale) for g in frame if g.verdict != "absent"] for frame in found],
        )
        seconds = max(preview.times[-1] - preview.times[0], 0.1)
        smooth = [frame for frame in drawn for _ in range(max(1, round(8 * seconds / len(drawn))))]
        path = Path(tempfile.mkdtemp(dir=results_folder())) / "annotated.mp4"
        written = write_video(smooth, len(smooth) / seconds, path)
        return {self.annotated: gr.update(value=str(written), visible=True)}

    def export(self, result: Result) -> list[dict[str, Any]]:
        return [
            {"phrase": g.phrase}
            | dict(zip(("x1", "y1", "x2", "y2"), g.box_xyxy))
            | {"match": g.match, "verdict": g.verdict}
            | (g.agreement.to_dict() if g.agreement else {})
            for g in result.found
        ]


def scaled(found: Grounding, scale: Sequence[float]) -> Grounding:
    """The same with its box in pixels of a smaller copy."""
    box = tuple(side * factor for side, factor in zip(found.box_xyxy, scale))
    return dataclasses.replace(found, box_xyxy=box)


def findings(
    found: Sequence[Grounding], size: tuple[int, int], region: Sequence[float] | None
) -> str:
    """The phrases with verdict, box and agreement; with a region each box's overlap with it."""
    rows = []
    for k, one in enumerate(found):
        x1, y1, x2, y2 = (round(side) for side in one.box_xyxy)
        share = html.percent((x2 - x1) * (y2 - y1) / (size[0] * size[1]))
        box = f"<small class='num'>x {x1}–{x2}, y {y1}–{y2} px · {share}</small>"
        shown = html.pick(f"{k}:", f"{html.badge(k)}<b>{escape(one.phrase)}</b>", k == 0, "row")
        row = [f"{shown}{box}", html.verdict(one), agreement(one)]
        rows.append(row + ([html.number(measures.iou(one.box_xyxy, region))] if region else []))
    head = ["phrase", "verdict", "heat_inside", *(["iou"] if region else [])]
    odd = [str(k + 1) for k, one in enumerate(found) if degenerate(one, size)]
    notes = html.note("degenerate", "warn", which=", ".join(odd)) if odd else ""
    notes += "".join(html.cut(one.phrase, one.truncated_at) for one in found)
    explained = f'<div class="helps">{say("heat_inside")}{html.help_mark("heat_inside_help")}</div>'
    return html.table(head, rows, "findings") + notes + explained + html.note("one_box")


def agreement(found: Grounding) -> str:
    """Share of the heat inside the box, and whether its peak is."""
    if found.agreement is None or found.verdict == "absent":
        return "–"
    hit = found.agreement.pointing_hit
    peak = "" if hit is None else f"<br><small>{say('peak_in' if hit else 'peak_out')}</small>"
    return html.percent(found.agreement.energy_inside) + peak


def degenerate(found: Grounding, size: tuple[int, int]) -> bool:
    """Whether a box is nearly nothing or nearly all of the image."""
    x1, y1, x2, y2 = found.box_xyxy
    share = (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    return found.verdict != "absent" and not SMALL <= share <= LARGE
