"""Ask: a question, its best answers, and the map behind each."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any, ClassVar

import gradio as gr

from x2vlm.results import Answers

from .. import html, inputs, limits
from ..components import Pick
from ..i18n import say, t
from ..state import Layer, Result, Texts, ViewState
from ..tab import Asker, HandOver, Shown, Tab, Values

CLOSE = 0.15  # two best answers nearer than this get a note
ASKED = 10  # questions kept


class Ask(Tab):
    """Questions about the image, a video, or the region."""

    name = "ask"
    task = "answer"
    defaults: ClassVar = {"question": "", "mode": "auto", "choices": ""}
    rules: ClassVar = {"question": inputs.question, "choices": inputs.choices}
    submits = ("question",)
    hand_overs = (
        HandOver(
            "to_inspect",
            "inspect",
            lambda result: {"text": result.found[0].question, "target": "answer"},
        ),
    )

    def build_fields(self, values: Values) -> None:
        self.fields["question"] = gr.Textbox(
            values["question"],
            label=t("question"),
            placeholder=t("question_hint"),
            max_length=limits.LETTERS,
            elem_id="question",
        )
        self.starters = Pick(elem_id="starters")
        self.starters.select(
            None,
            [],
            [self.fields["question"]],
            js="() => document.querySelector('#starters [aria-pressed=true]').innerText",
            show_progress="hidden",
            api_visibility="private",
        )

    def build_options(self, values: Values) -> None:
        modes = [(t(key), mode) for key, mode in MODES]
        self.fields["mode"] = gr.Radio(modes, value=values["mode"], label=t("ask_mode"))
        self.fields["choices"] = gr.Textbox(values["choices"], label=t("choices"), lines=3)

    def build_result(self) -> None:
        with gr.Accordion(t("history"), open=False):
            self.history = gr.HTML(elem_id="asked")

    def suggest(self, texts: Texts) -> Values:
        return {"question": texts.question}

    def run(self, ask: Asker, values: Values) -> Result:
        options = inputs.answer_options(values["mode"], values["choices"])
        question, example = inputs.question(values["question"]), {"example": ask.info.example}
        if region := ask.state.region:
            found = ask.on_frame(ask.state.video_frame, "answer_region", region, question)
            return self.result(ask, values, "answer_region", (found,), box=region, **example)
        found = ask("answer", question, **options)
        maps = [
            ask.explain(found.question, use="answer", answer=answer.text)
            for answer in found.answers
        ]
        return self.result(ask, values, "answer", (found,), maps, **options, **example)

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        return tuple(Layer(a.text, one) for a, one in zip(found[0].answers, maps) if one)

    def remember(self, state: ViewState, result: Result) -> ViewState:
        found = result.found[0]
        probability = round(found.answers[0].probability, 3) if found.answers else 0.0
        row = (found.question, found.best, probability)
        others = tuple(old for old in state.asked if old != row)
        return dataclasses.replace(state, asked=(row, *others)[:ASKED])

    def show(self, state: ViewState | None) -> Shown:
        rows = [
            [escape(question), f"<b>{escape(answer)}</b>", html.bar(probability)]
            for question, answer, probability in (state.asked if state else ())
        ]
        history = html.table((), rows, "asked") if rows else html.note("nothing_asked")
        starters = "".join(
            html.pick("question", escape(question), kind="chip")
            for question in (state.texts.questions if state else ())
        )
        return super().show(state) | {
            self.history: history,
            self.starters: f'<div class="words">{starters}</div>' if starters else "",
        }

    def render(self, result: Result, state: ViewState) -> str:
        found: Answers = result.found[0]
        rows = "".join(
            html.pick(
                f"{k}:" if result.layers else "none",
                f"<span>{escape(answer.text)}</span>{html.bar(answer.probability)}",
                k == result.layer,
                "answer-row",
            )
            for k, answer in enumerate(found.answers)
        )
        notes = html.note("region_answer") if result.task == "answer_region" else ""
        return (
            f'<div class="card answer"><p class="q">{escape(found.question)}</p>'
            f'<p class="a">{escape(say("unsure") if found.unsure else found.best or "–")}</p></div>'
            f"{answer_notes(found, result.settings.get('example', ''))}{notes}"
            f'<div class="card answers">{rows}</div>'
            + (f'<p class="note">{say("probabilities")}</p>' if result.layers else "")
        )

    def export(self, result: Result) -> list[dict[str, Any]]:
        return [
            {"question": found.question, "answer": a.text, "probability": a.probability}
            for found in result.found
            for a in found.answers
        ]


MODES = (("auto", "auto"), ("ranked", "rank"), ("generated", "generate"))


def answer_notes(found: Answers, example: str) -> str:
    """What makes an answer doubtful; of a question that was not understood one that is."""
    if found.unsure:
        key = "not_understood_but" if example else "not_understood"
        said = html.note(key, "warn", example=example)
        return said + html.cut(found.question, found.truncated_at)
    probable = [answer.probability for answer in found.answers]
    close = len(probable) > 1 and probable[0] - probable[1] < CLOSE
    counted = found.best.isdigit() or found.question.lower().startswith("how many")
    weak = counted or found.best in ("yes", "no")
    notes = (html.note("close") if close else "") + (html.note("weak_spot") if weak else "")
    return notes + html.cut(found.question, found.truncated_at)
