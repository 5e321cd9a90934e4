"""Inspect: for every word, where the model looks; methods compared; is the map faithful."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from .. import inputs, limits, panels, viewing
from ..i18n import t
from ..page import Page, initial

METHODS = [
    ("cross-attention × gradient", "gradient"),
    ("raw cross-attention", "attention"),
    ("attention rollout", "rollout"),
    ("image-encoder Grad-CAM", "image-gradcam"),
    ("random baseline", "random"),
]


def layer_choices(count: int) -> list[str]:
    """Fusion layers of a model, from 0."""
    return ["default", "mean", *map(str, range(count))]


def head_choices(count: int) -> list[str]:
    """Attention heads of a fusion layer, from 0."""
    return ["default", "max", *map(str, range(count))]


def build(page: Page) -> SimpleNamespace:
    numbers, gallery = panels.inspect(
        page.first.get("explain"), page.first_shown.seen if page.first_shown else None
    )
    text = gr.Textbox(
        page.text("text"),
        label=t("text_to_inspect"),
        max_length=limits.LETTERS,
        elem_id="inspect-text",
    )
    targets = [(t(f"target_{name}"), name) for name in ("match", "caption", "answer", "box")]
    target = gr.Radio(targets, value="match", label=t("target"))
    run = gr.Button(t("inspect"), variant="primary", elem_id="run-inspect")
    numbers = gr.HTML(numbers, elem_id="map-numbers")
    gallery = gr.Gallery(
        **initial(gallery),
        label=t("small_multiples"),
        columns=5,
        height="auto",
        object_fit="contain",
        format="png",
        allow_preview=False,
        interactive=False,
        elem_id="small-multiples",
    )
    with gr.Accordion(t("advanced"), open=False):
        method = gr.Dropdown(METHODS, value="gradient", label=t("method"))
        with gr.Row():
            layer = gr.Dropdown(layer_choices(3), value="default", label=t("layer_number"))
            head = gr.Dropdown(head_choices(4), value="default", label=t("head_number"))
    with gr.Row(elem_id="doubt"):
        other = gr.Dropdown(METHODS, value="random", label=t("compare"), scale=2)
        compare = gr.Button(t("compare_run"), scale=1, elem_id="compare")
        deletion = gr.Button(t("deletion"), scale=1, elem_id="deletion")
    slider = gr.ImageSlider(visible=False, label=t("compared"), interactive=False, format="png")
    compared = gr.HTML(elem_id="compared")
    check = gr.HTML(elem_id="faithfulness")
    return SimpleNamespace(
        text=text,
        target=target,
        run=run,
        gallery=gallery,
        controls=[target, layer, head, method],
        layer=layer,
        head=head,
        other=other,
        compare=compare,
        slider=slider,
        compared=compared,
        deletion=deletion,
        check=check,
        outputs=[numbers, gallery],
    )


def wire(page: Page) -> None:
    tab = page.inspect
    rules = {tab.text: inputs.text}
    fields = [*page.context, tab.text, *tab.controls]
    page.on_model(
        [tab.run.click, tab.text.submit],
        page.handlers.inspect,
        fields,
        [*tab.outputs, *page.stage],
        rules=rules,
    )
    compared = [tab.slider, tab.compared]
    page.on_model(tab.compare.click, page.handlers.compare, [*page.context, tab.other], compared)
    page.on_model(tab.deletion.click, page.handlers.deletion, [page.shown, page.model], [tab.check])
    page.on_view(
        tab.gallery.select, viewing.choose_own_word("inspect"), [page.shown, page.look], page.stage
    )
