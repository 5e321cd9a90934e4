"""Find, the signature: box, heat, match and verdict of every phrase on one picture."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from .. import inputs, limits, panels, viewing
from ..i18n import t
from ..page import Page


def build(page: Page) -> SimpleNamespace:
    (card,) = panels.find(
        page.first.get("ground"), page.first_shown.seen.size if page.first_shown else (1, 1)
    )
    phrases = gr.Textbox(
        page.text("phrases"),
        label=t("phrases"),
        lines=4,
        max_length=limits.LETTERS,
        elem_id="phrases",
    )
    run = gr.Button(t("find"), variant="primary", elem_id="run-find")
    card = gr.HTML(card, elem_id="findings")
    with gr.Row():
        to_inspect = gr.Button(t("to_inspect"), size="sm")
        annotate = gr.Button(t("annotate"), size="sm", visible=False, elem_id="annotate")
    clip = gr.Video(visible=False, interactive=False, label=t("clip"), elem_id="annotated")
    with gr.Accordion(t("advanced"), open=False), gr.Row():
        absent_below = gr.Slider(0, 1, limits.ABSENT_BELOW, step=0.01, label=t("absent_at"))
        found_from = gr.Slider(0, 1, limits.FOUND_FROM, step=0.01, label=t("present_at"))
    return SimpleNamespace(
        phrases=phrases,
        run=run,
        to_inspect=to_inspect,
        annotate=annotate,
        clip=clip,
        controls=[absent_below, found_from],
        outputs=[card],
    )


def wire(page: Page) -> None:
    tab = page.find
    rules = {tab.phrases: inputs.phrases}
    fields = [*page.context, tab.phrases, *tab.controls, *page.sides]
    page.on_model(
        tab.run.click, page.handlers.find, fields, [*tab.outputs, *page.stage], rules=rules
    )
    page.on_model(
        tab.annotate.click,
        page.handlers.annotate,
        [page.shown, page.model, tab.phrases],
        [tab.clip],
        rules=rules,
    )
    inspect = [page.inspect.text, page.inspect.target, page.tabs]
    page.on_view(tab.to_inspect.click, viewing.text_to_inspect("find"), [page.shown], inspect)
