"""Match: which text fits best, by both scores; for clips, when."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from .. import inputs, limits, panels, viewing
from ..components import Curve
from ..i18n import t
from ..page import Page


def build(page: Page) -> SimpleNamespace:
    (card,) = panels.match(page.first.get("match"))
    texts = gr.Textbox(
        page.text("texts"), label=t("texts"), lines=5, max_length=limits.LETTERS, elem_id="texts"
    )
    run = gr.Button(t("rank"), variant="primary", elem_id="run-match")
    card = gr.HTML(card, elem_id="matches")
    with gr.Row():
        to_inspect = gr.Button(t("to_inspect"), size="sm")
        over_time = gr.Button(t("over_time"), size="sm", visible=False, elem_id="over-time")
    curve = Curve(elem_id="match-curve")
    with gr.Accordion(t("advanced"), open=False):
        template = gr.Textbox(label=t("template"), placeholder="a picture of {}")
    return SimpleNamespace(
        texts=texts,
        run=run,
        to_inspect=to_inspect,
        over_time=over_time,
        curve=curve,
        template=template,
        outputs=[card],
    )


def wire(page: Page) -> None:
    tab = page.match
    rules = {tab.texts: inputs.texts}
    fields = [*page.context, tab.texts, tab.template]
    page.on_model(
        tab.run.click, page.handlers.match, fields, [*tab.outputs, *page.stage], rules=rules
    )
    page.on_model(
        tab.over_time.click,
        page.handlers.over_time,
        [page.shown, page.model, tab.texts],
        [tab.curve],
        rules=rules,
    )
    page.on_view(tab.curve.select, viewing.choose_frame, [page.shown, page.look], page.redraw)
    inspect = [page.inspect.text, page.inspect.target, page.tabs]
    page.on_view(tab.to_inspect.click, viewing.text_to_inspect("match"), [page.shown], inspect)
