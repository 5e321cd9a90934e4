"""Events that bring media onto the stage or another model, and what they change around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from . import html, inputs
from .i18n import language, say
from .page import Page
from .state import ViewOptions, ViewState
from .tab import Shown
from .uploads import Arrival, Uploads
from .view_events import Events
from .wiring import Call


def wire(page: Page, demo: gr.Blocks) -> None:
    """Bind all events of a page that has been laid out."""
    events = ArrivalEvents(page)
    for tab in page.tabs.values():
        events.wire_tab(tab)
    events.wire_view()
    events.wire_downloads()
    events.wire_arrivals(demo)


class ArrivalEvents(Events):
    """All events of one page."""

    def __init__(self, page: Page):
        super().__init__(page)
        known = page.painted is not None and bool(page.painted.results)
        self.uploads = Uploads(page.runner, page.stored, list(page.tabs.values()), known)

    def wire_arrivals(self, demo: gr.Blocks) -> None:
        page, uploads, model = self.page, self.uploads, self.page.model

        def clear(call: Call) -> Arrival | None:
            return uploads.clear(call.session, call[model])

        for uploader, triggers in (
            (page.image, [page.image.upload]),
            (page.video, [page.video.upload, page.video.stop_recording]),
        ):

            def upload(call: Call, uploader: Any = uploader) -> Arrival | None:
                return uploads.upload(call.session, call[uploader], call[model])

            uploaded = self.arrival(triggers, upload, [uploader])
            # What was refused does not stay beside the stage.
            self.on.on_view(uploaded.failure, None, [], [uploader], js="() => null")
            self.arrival(uploader.clear, clear)

        def use_frames(call: Call) -> Arrival | None:
            wanted = call[page.frame_count], call[page.frame_numbers]
            return uploads.use_frames(call.session, call[page.state], call[model], *wanted)

        def new_scene(call: Call) -> Arrival | None:
            return uploads.new_scene(call.session, call[page.kind], call[model])

        def example(call: Call) -> Arrival | None:
            return uploads.example(call.session, str(call.chosen), call[model])

        self.arrival(
            page.use_frames.click,
            use_frames,
            [page.frame_count, page.frame_numbers],
            rules={page.frame_numbers: inputs.frame_numbers},
        )
        self.arrival(page.new_scene.click, new_scene, [page.kind])
        self.arrival(page.examples.select, example)
        self.wire_opening(demo)

    def wire_opening(self, demo: gr.Blocks) -> None:
        """The painted example onto the stage, then what the address asks for."""
        page, model = self.page, self.page.model
        self.on.on_model(
            [demo.load, model.change],
            self.model_status,
            [page.state, model, *self.fields],
            self.status_outputs(),
            show_progress="hidden",
        )

        def open_page(call: Call) -> Shown:
            tab, state = call.request.query_params.get("tab"), page.painted
            if state is None:
                return {page.state: None}
            shown: Shown = {}
            if tab in page.tabs:
                state = dataclasses.replace(state, tab=tab)
                shown = {page.bar: gr.update(selected=tab)}
            if shown or language():  # what was painted shows the first tab and speaks English
                shown |= page.stage.show(state, ViewOptions())
            return shown | {page.state: state}

        def arrive(call: Call) -> Arrival | None:
            wish = dict(call.request.query_params)
            return self.uploads.arrive(call.session, wish, call[model])

        opened = self.on.on_view(demo.load, open_page, [], [*self.drawn, page.bar])
        self.arrival(opened.then, arrive, show_progress="hidden")

    def arrival(
        self,
        triggers: Any,
        bring: Callable[[Call], Arrival | None],
        extra: Iterable[Any] = (),
        **options: Any,
    ) -> Any:
        """An event that brings media onto the stage."""
        settings = {"show_progress_on": self.page.stage.legend} | options
        return self.on.on_model(
            triggers,
            bring,
            [*self.context, *extra],
            self.everything_outputs(),
            settle=self.everything,
            **settings,
        )

    def everything(self, call: Call, arrival: Arrival | None) -> Shown:
        """Stage, uploaders, frames, all tabs' fields and results for what has arrived; nothing
        where a newer arrival came first."""
        if arrival is None:
            return {}
        page, state = self.page, arrival.state
        before = call[page.state]
        # The visitor's tab stays, unless a link names one or an empty stage knew of none.
        opens = state is not None and (before is None or state.tab in page.tabs)
        if state is not None and state.tab not in page.tabs:
            tab = before.tab if before else next(iter(page.tabs))
            state = dataclasses.replace(state, tab=tab)
        options = page.stage.options(call.values)
        shown: Shown = {page.state: state} | page.stage.show(state, options)
        for tab in page.tabs.values():
            shown |= tab.show(state)
            if tab.asks and state is not None:
                values = tab.suggest(state.texts) | arrival.values.get(tab.name, {})
                shown |= {tab.fields[name]: value for name, value in values.items()}
            if tab.asks:
                shown[tab.note] = ""
        if state is not None and arrival.model != call[page.model]:
            shown[page.model] = arrival.model
        if opens:
            shown[page.bar] = gr.update(selected=state.tab)
        return shown | self.around(state, arrival.truth)

    def around(self, state: ViewState | None, truth: str) -> Shown:
        """What stands around the stage."""
        page, video = self.page, state is not None and state.is_video
        path = state.media.path if state else None
        shown = {
            page.region_on: gr.update(visible=False),
            page.files: gr.update(value=None, visible=False),
            page.link_box: gr.update(value="", visible=False),
            page.frames: gr.update(visible=video),
            page.truth: gr.update(visible=bool(truth)),
            page.truth_card: truth,
            page.source_note: "",
            page.strip: html.strip(state.preview, state.frame) if video else "",
        } | dict.fromkeys(page.sides, 0)
        if state is not None:
            shown |= {
                page.kind: "video" if video else "image",
                page.image: gr.update(value=None if video else path, visible=not video),
                page.video: gr.update(value=path if video else None, visible=video),
            }
        if video:
            indices = state.preview.indices
            shown[page.frame_count] = len(indices)
            numbers = ", ".join(map(str, indices))
            # While empty, the count decides.
            shown[page.frame_numbers] = gr.update(value="", placeholder=numbers)
        return shown

    def everything_outputs(self) -> list[Any]:
        """All components that an arrival may change."""
        page = self.page
        tabs = [component for tab in page.tabs.values() for component in tab.show(None)]
        around = list(self.around(None, ""))
        sources = [page.kind, page.image, page.video, page.frame_count, page.frame_numbers]
        notes = [tab.note for tab in self.asking]
        rest = [*sources, page.model, page.bar]
        return list(dict.fromkeys([*self.drawn, *tabs, *self.fields, *notes, *around, *rest]))

    def model_status(self, call: Call) -> Shown:
        """Which model answers, which tabs it greys out and why, its own thresholds and layers."""
        page = self.page
        predictor = page.runner.models[call[page.model]]
        info, missing = predictor.info, predictor.missing
        shown = {
            page.status: html.head(html.escape(info.name)),
            page.model_note: html.model_note(info.name, info.note),
        }
        lacks = [
            f"<b>{say(f'tab_{tab.name}')}</b>{html.note('lacks', 'warn', reason=missing[tab.task])}"
            for tab in page.tabs.values()
            if tab.task in missing
        ]
        shown[page.lacks] = gr.update(value="".join(lacks), visible=bool(lacks))
        for tab in page.tabs.values():
            shown[page.items[tab.name]] = gr.update(interactive=tab.task not in missing)
            own = {tab.fields[name]: value for name, value in tab.own(info).items()}
            shown |= own | tab.adapt(info)
        return shown | self.told(call, call[page.state], self.asking)

    def status_outputs(self) -> list[Any]:
        page = self.page
        notes = [tab.note for tab in self.asking]
        return [
            page.status,
            page.model_note,
            page.lacks,
            *page.items.values(),
            *(field for field in self.fields),
            *notes,
        ]
