"""Ask: a question, its best answers, and the map behind each."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from .. import inputs, limits, panels, viewing
from ..i18n import t
from ..page import Page, initial

STARTERS = (
    "what is there?",
    "how many animals are there?",
    "what color is the largest thing?",
    "where is the scene?",
)


def build(page: Page) -> SimpleNamespace:
    card, label = panels.ask(page.first.get("answer"))
    question = gr.Textbox(
        page.text("question"),
        label=t("question"),
        placeholder=t("question_hint"),
        max_length=limits.LETTERS,
        elem_id="question",
    )
    with gr.Row(elem_classes="chips"):
        starters = [gr.Button(text, size="sm", min_width=60) for text in STARTERS]
    run = gr.Button(t("ask"), variant="primary", elem_id="run-ask")
    card = gr.HTML(card, elem_id="answer")
    label = gr.Label(
        **initial(label),
        label=t("probabilities"),
        num_top_classes=limits.TOP_ANSWERS,
        elem_id="answers",
    )
    to_inspect = gr.Button(t("to_inspect"), size="sm")
    with gr.Accordion(t("advanced"), open=False):
        modes = [(t("auto"), "auto"), (t("ranked"), "rank"), (t("generated"), "generate")]
        mode = gr.Radio(modes, value="auto", label=t("ask_mode"))
        choices = gr.Textbox(label=t("choices"), lines=3)
    with gr.Accordion(t("history"), open=False):
        history = gr.Dataframe(
            headers=["question", "answer", "p"],
            type="array",
            interactive=False,
            buttons=["copy"],
            show_label=False,
        )
    return SimpleNamespace(
        question=question,
        starters=starters,
        run=run,
        label=label,
        to_inspect=to_inspect,
        controls=[mode, choices],
        choices=choices,
        history=history,
        outputs=[card, label],
    )


def wire(page: Page) -> None:
    tab = page.ask
    fields = [*page.context, tab.question, *tab.controls]
    rules = {tab.question: inputs.question, tab.choices: inputs.choices}
    asked = page.on_model(
        [tab.run.click, tab.question.submit],
        page.handlers.ask,
        fields,
        [*tab.outputs, *page.stage],
        rules=rules,
    )
    page.on_view(asked.success, viewing.remember, [page.shown, tab.history], [tab.history])
    for starter in tab.starters:
        page.on_view(starter.click, None, [], [tab.question], js=f"() => {starter.value!r}")
    page.on_view(tab.label.select, viewing.choose_answer, [page.shown, page.look], page.stage)
    inspect = [page.inspect.text, page.inspect.target, page.tabs]
    page.on_view(tab.to_inspect.click, viewing.text_to_inspect("ask"), [page.shown], inspect)
