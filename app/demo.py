"""The app: models, examples and tabs put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from x2vlm.hub import BUNDLED

from . import api, examples, limits
from .arrival_events import wire
from .examples import Example, load_examples
from .page import Page
from .service.admission import ONLY_UPLOADS
from .service.gradio_patches import refuse_addresses
from .service.models import Models
from .service.runner import Runner
from .tabs import TABS, Tab
from .uploads import first_image


def build_demo(
    load: Callable[[str], Any],
    names: tuple[str, ...] = BUNDLED,
    *,
    open_choice: bool = False,
    stored: dict[str, Example] | None = None,
    workers: int | None = None,
    threads: int | None = None,
    tabs: Sequence[type[Tab]] = TABS,
    weights: Callable[[str], str | None] = examples.bundled_hash,
) -> gr.Blocks:
    """The app, ready for `service.server.serve`.

    Args:
        load: name or path of a model -> Predictor; called on first use.
        names: models on offer, the first by default; the bundled ones if left out.
        open_choice: visitors may type any model name or path; only for one's own machine.
        stored: examples by name; the bundled ones by default.
        workers, threads: model calls at a time and torch threads of each; by default as
            `x2vlm.serving.plan_concurrency` says.
        tabs: what the page can do.
        weights: name of a model -> hash of its weights, if that is known before it is loaded.
    """
    made = [tab() for tab in tabs]
    runner = Runner(Models(load, names, open_choice=open_choice), workers, threads)
    stored = load_examples(made) if stored is None else stored
    first = first_image(stored)
    painted = first.on_stage(weights(names[0])) if first else None
    if painted:
        painted = dataclasses.replace(painted, tab=made[0].name)
    with gr.Blocks(
        title="X²-VLM",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(600, limits.TEMP_SECONDS),
    ) as demo:
        page = Page(runner, made, stored, painted)
        page.build()
        wire(page, demo)
        demo.endpoints = api.publish(runner)
    refuse_addresses(demo, f"{ONLY_UPLOADS} [image/reference]")
    demo.runner, demo.page = runner, page
    return demo
