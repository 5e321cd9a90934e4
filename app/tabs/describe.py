"""Describe: a caption, its words and its rivals."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from .. import limits, panels, viewing
from ..i18n import t
from ..page import Page, initial


def build(page: Page) -> SimpleNamespace:
    first, table = panels.describe(page.first.get("caption"))
    run = gr.Button(t("describe"), variant="primary", elem_id="run-describe")
    words = gr.HighlightedText(**initial(first), label=t("caption_words"), elem_id="caption-words")
    table = gr.HTML(table, elem_id="captions")
    with gr.Row():
        to_find = gr.Button(t("to_find"), size="sm", elem_id="caption-to-find")
        to_inspect = gr.Button(t("to_inspect"), size="sm")
        to_match = gr.Button(t("to_match"), size="sm")
    with gr.Accordion(t("advanced"), open=False):
        controls = _controls()
    return SimpleNamespace(
        run=run,
        words=words,
        to_find=to_find,
        to_inspect=to_inspect,
        to_match=to_match,
        controls=controls,
        outputs=[words, table],
    )


def _controls() -> list[gr.components.Component]:
    decoding = gr.Radio(
        [(t("beam"), "beam"), (t("sample"), "sample")], value="beam", label=t("decoding")
    )
    with gr.Row():
        beams = gr.Slider(1, limits.BEAMS, 3, step=1, label=t("beams"))
        candidates = gr.Slider(1, limits.CAPTIONS, 3, step=1, label=t("candidates"))
    with gr.Row():
        shortest = gr.Slider(0, 20, 0, step=1, label=t("min_tokens"))
        longest = gr.Slider(1, limits.NEW_TOKENS, 30, step=1, label=t("max_tokens"))
    with gr.Row():
        top_p = gr.Slider(0.05, 1, 0.9, step=0.05, label=t("top_p"))
        temperature = gr.Slider(0.1, 2, 1, step=0.1, label=t("temperature"))
        seed = gr.Number(0, precision=0, label=t("seed"))
    prefix = gr.Textbox(label=t("prefix"), max_length=100)
    return [decoding, beams, candidates, shortest, longest, top_p, temperature, seed, prefix]


def wire(page: Page) -> None:
    tab = page.describe
    fields = [*page.context, *tab.controls]
    page.on_model(tab.run.click, page.handlers.describe, fields, [*tab.outputs, *page.stage])
    page.on_view(
        tab.words.select, viewing.choose_own_word("describe"), [page.shown, page.look], page.stage
    )
    page.on_view(
        tab.to_find.click, viewing.caption_to_find, [page.shown], [page.find.phrases, page.tabs]
    )
    inspect = [page.inspect.text, page.inspect.target, page.tabs]
    page.on_view(tab.to_inspect.click, viewing.text_to_inspect("describe"), [page.shown], inspect)
    page.on_view(
        tab.to_match.click,
        viewing.caption_to_match,
        [page.shown, page.match.texts],
        [page.match.texts, page.tabs],
    )
