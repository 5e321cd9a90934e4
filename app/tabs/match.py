"""Match: which text fits best, by both scores; for videos, when."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, ClassVar

import gradio as gr

from x2vlm.results import Match as MatchOfText

from .. import html, inputs, limits, measures
from ..chart import curve
from ..components import Pick
from ..i18n import t
from ..state import Result, Texts, ViewState
from ..tab import Action, Asker, HandOver, Shown, Tab, Values


class Match(Tab):
    """Texts ranked by how well they fit the image, a video, or the region."""

    name = "match"
    task = "match"
    defaults: ClassVar = {"texts": "", "template": ""}
    rules: ClassVar = {"texts": inputs.texts}
    hand_overs = (
        HandOver(
            "to_inspect",
            "inspect",
            lambda result: {"text": result.found[0].text, "target": "default"},
        ),
    )

    def build_fields(self, values: Values) -> None:
        self.fields["texts"] = gr.Textbox(
            values["texts"], label=t("texts"), lines=4, max_length=limits.LETTERS, elem_id="texts"
        )

    def build_options(self, values: Values) -> None:
        self.fields["template"] = gr.Textbox(
            values["template"], label=t("template"), placeholder="a picture of {}"
        )

    def build_result(self) -> None:
        self.over_time = gr.Button(t("over_time"), size="sm", visible=False, elem_id="over-time")
        self.curve = Pick(elem_id="match-curve")

    def actions(self) -> tuple[Action, ...]:
        return (Action(self.over_time.click, self.draw_over_time, (self.curve,)),)

    def picks(self) -> tuple[Any, ...]:
        return (self.card, self.curve)

    def suggest(self, texts: Texts) -> Values:
        return {"texts": texts.texts}

    def run(self, ask: Asker, values: Values) -> Result:
        asked = inputs.filled(values["template"], inputs.texts(values["texts"]))
        if region := ask.state.region:
            frame = ask.state.video_frame
            found = ask.on_frame(frame, "describe_region", region, phrases=asked).matches
            return self.result(ask, values, "match_region", measures.ranked(found), box=region)
        return self.result(ask, values, "match", measures.ranked(ask("match", asked)))

    def show(self, state: ViewState | None) -> Shown:
        video = state is not None and state.is_video
        return super().show(state) | {self.over_time: gr.update(visible=video), self.curve: ""}

    def render(self, result: Result, state: ViewState) -> str:
        return matches(result.found)

    def draw_over_time(self, ask: Asker, values: Values) -> Shown:
        """Match of the first text with every seen frame."""
        text = inputs.texts(values["texts"])[0]
        times, scores = zip(*ask("match_over_time", text))
        return {self.curve: curve(times, {"match": scores}, "seconds", choosable=True)}

    def export(self, result: Result) -> list[dict[str, Any]]:
        return [
            {"text": m.text, "match": m.probability, "similarity": m.similarity}
            for m in result.found
        ]


def matches(found: Sequence[MatchOfText]) -> str:
    """Texts best first; both scores, and a note where the two disagree about the best."""
    rows = [
        [str(k + 1), escape(m.text), html.bar(m.probability), html.number(m.similarity)]
        for k, m in enumerate(found)
    ]
    similar = [m.similarity for m in found if m.similarity is not None]
    first = found[0].similarity if found else None
    disagree = len(similar) > 1 and first is not None and first < max(similar)
    cuts = "".join(html.cut(m.text, m.truncated_at) for m in found)
    notes = html.note("disagree") if disagree else ""
    return html.table(["", "text", "match", "similarity"], rows, "matches") + notes + cuts
