"""Events of the page: what a press, a choice, a region or an arrival does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from . import export, html, inputs
from .i18n import now
from .page import Page
from .service.gradio_patches import results_folder
from .state import ViewOptions, ViewState, loaded
from .tab import Action, Asker, HandOver, Shown, Tab
from .theme import script
from .wiring import Call, Wiring


class Events:
    """The events of one page.

    Attributes:
        context: inputs of what draws the stage.
        drawn: outputs of what draws the stage.
        fields: all fields of all tabs.
    """

    def __init__(self, page: Page):
        self.page, self.on = page, Wiring(page.runner.jobs, page.state)
        self.asking = [tab for tab in page.tabs.values() if tab.asks]
        self.context = [page.state, page.model, *page.stage.controls.values()]
        self.drawn = [page.state, *page.stage.show(None, ViewOptions())]
        self.fields = [field for tab in self.asking for field in tab.fields.values()]
        self.on.errors["image/empty"] = lambda sentence: {
            page.source_note: f'<p class="wrong" role="alert">{sentence}</p>'
        }

    def asker(self, call: Call, state: ViewState | None = None) -> Asker:
        page = self.page
        return Asker(page.runner, call.session, state or call[page.state], call[page.model])

    def seen(self, call: Call, state: ViewState) -> Shown:
        """The stage for a state."""
        options = self.page.stage.options(call.values)
        return {self.page.state: state} | self.page.stage.show(state, options)

    def told(self, call: Call, state: ViewState | None, tabs: Iterable[Tab]) -> Shown:
        """The lines below the tabs' fields."""
        model = call[self.page.model]
        return {tab.note: tab.told(state, model, tab.known(call.values)) for tab in tabs}

    # one tab

    def wire_tab(self, tab: Tab) -> None:
        page, on, fields = self.page, self.on, list(tab.fields.values())

        def select_tab(call: Call) -> Shown:
            state = call[page.state]
            if state is None or state.tab == tab.name:
                return {}
            return self.seen(call, dataclasses.replace(state, tab=tab.name))

        for action in tab.actions():
            self.wire_action(tab, action)
        if not tab.asks:  # the stage keeps the result that it shows
            return
        on.on_view(
            [page.items[tab.name].select],
            select_tab,
            self.context,
            self.drawn,
            trigger_mode="always_last",
        )

        def ask(call: Call) -> Shown:
            state = loaded(call[page.state])
            result = tab.timed(self.asker(call, state), tab.known(call.values))
            return {tab.fresh: result, page.source_note: ""}

        ran = on.on_model(
            [tab.go.click, *(tab.fields[name].submit for name in tab.submits)],
            ask,
            [page.state, page.model, *fields],
            [tab.fresh, page.source_note],
            {tab.fields[name]: rule for name, rule in tab.rules.items()},
            show_progress_on=tab.card,
        )
        self.settle(ran, tab)
        for button, hand in zip(tab.buttons, tab.hand_overs):
            if hand.to in page.tabs:
                self.wire_hand_over(tab, button, hand)

        def tell(call: Call) -> Shown:
            return self.told(call, call[page.state], [tab])

        changes = [field.change for field in fields]
        on.on_view(changes, tell, [page.state, page.model, *fields], [tab.note])
        picks = [picker.select for picker in tab.picks()]
        on.on_view(picks, self.picking(tab), self.context, self.drawn)

    def wire_action(self, tab: Tab, action: Action) -> None:
        page = self.page

        def act(call: Call) -> Shown:
            state = loaded(call[page.state]) if tab.asks else call[page.state]
            return action.run(self.asker(call, state), tab.known(call.values))

        self.on.on_model(
            action.trigger,
            act,
            [page.state, page.model, *tab.fields.values()],
            [*action.shows, page.source_note],
            show_progress_on=tab.card,
        )

    def settle(self, ran: Any, tab: Tab, opens: bool = False) -> None:
        """After a call: its result joins the stage as that is now, which may have moved on.

        Args:
            opens: whether the tab comes into view with it.
        """
        page = self.page

        def settle_result(call: Call) -> Shown:
            state, result = call[page.state], call[tab.fresh]
            if state is None or result is None or result.asked["media"] != state.media.path:
                return {}
            if opens:
                state = dataclasses.replace(state, tab=tab.name)
            state = tab.remember(state.with_result(tab.name, result), result)
            status = html.head(html.escape(call[page.model]), result.seconds)
            shown = self.seen(call, state) | tab.show(state) | {page.status: status}
            # The tab opens with its result on the stage, so that its own event has nothing to add.
            opened = {page.bar: gr.update(selected=tab.name)} if opens else {}
            return shown | opened | self.told(call, state, [tab])

        self.on.on_view(
            ran.success,
            settle_result,
            [*self.context, tab.fresh, *tab.fields.values()],
            [*self.drawn, *tab.show(None), tab.note, page.status, *([page.bar] if opens else [])],
            trigger_mode="multiple",
        )

    def wire_hand_over(self, tab: Tab, button: Any, hand: HandOver) -> None:
        """A button that fills another tab, opens it and presses its button."""
        page, target = self.page, self.page.tabs[hand.to]

        def hand_over(call: Call) -> Shown:
            state = loaded(call[page.state])
            result = state.results.get(tab.name)
            given = hand.fill(result) if result else {}
            if not given:
                return {}
            found = target.timed(self.asker(call, state), target.known(call.values) | given)
            filled = {target.fields[name]: value for name, value in given.items()}
            return filled | {target.fresh: found}

        fields = list(target.fields.values())
        ran = self.on.on_model(
            button.click,
            hand_over,
            [page.state, page.model, *fields],
            [*fields, target.fresh],
            show_progress_on=tab.card,
        )
        self.settle(ran, target, opens=True)

    def picking(self, tab: Tab | None) -> Callable[[Call], Shown]:
        """The handler of what was chosen in a tab's result, below the stage, or among frames."""

        def pick_part(call: Call) -> Shown:
            state = call[self.page.state]
            if state is None:
                return {}
            if tab is not None:
                state = dataclasses.replace(state, tab=tab.name)
            return self.seen(call, picked(state, str(call.chosen)))

        return pick_part

    # the view

    def wire_view(self) -> None:
        page, on = self.page, self.on

        def redraw(call: Call) -> Shown:
            state = call[page.state]
            return page.stage.redraw(state, page.stage.options(call.values)) if state else {}

        controls = [control.change for control in page.stage.controls.values()]
        on.on_view(controls, redraw, self.context, self.drawn)
        for picker in (page.stage.choices, page.strip):
            on.on_view(picker.select, self.picking(None), self.context, self.drawn)
        self.wire_region()

        def show_source(call: Call) -> Shown:
            video = call[page.kind] == "video"
            return {page.image: gr.update(visible=not video), page.video: gr.update(visible=video)}

        def stop(call: Call) -> Shown:
            page.runner.jobs.cancel(call.session)
            gr.Info(now("stopped"))
            return {}

        on.on_view(page.kind.input, show_source, [page.kind], [page.image, page.video])
        on.on_view(page.stop.click, stop, [], [])

    def wire_region(self) -> None:
        page, on = self.page, self.on

        def draw_region(call: Call) -> Shown:
            return self.with_region(call, tuple(float(side) for side in call.chosen))

        def type_region(call: Call) -> Shown:
            state = call[page.state]
            if state is None:
                return {}
            typed = tuple(call[side] for side in page.sides)
            if any(typed) and not all(typed[2:]):  # right or bottom is still to come
                return {}
            region = inputs.region(typed, state.preview.size)
            return {} if region == state.region else self.with_region(call, region)

        def clear_region(call: Call) -> Shown:
            return self.with_region(call, None)

        notes = [tab.note for tab in self.asking]
        needs = [*self.context, *self.fields]
        changes = [*self.drawn, *page.sides, page.region_on, *notes]
        on.on_view(page.stage.canvas.select, draw_region, needs, changes)
        on.on_view(page.clear_region.click, clear_region, needs, changes)
        typed = [trigger for side in page.sides for trigger in (side.submit, side.blur)]
        on.on_view(typed, type_region, [*needs, *page.sides], changes)
        on.on_view(page.finger.change, None, [page.finger], [], js=script("finger"))

    def with_region(self, call: Call, region: tuple[float, ...] | None) -> Shown:
        """The stage with another region, which every tab tells."""
        page, state = self.page, call[self.page.state]
        if state is None:
            return {}
        state = dataclasses.replace(state, region=region)
        sides = dict(zip(page.sides, region or (0, 0, 0, 0)))
        shown = {page.region_on: gr.update(visible=region is not None)}
        return self.seen(call, state) | sides | shown | self.told(call, state, self.asking)

    def wire_downloads(self) -> None:
        page, on = self.page, self.on

        def make_files(call: Call) -> Shown:
            state = call[page.state]
            if state is None:
                return {}
            rows = page.tabs[state.tab].export(state.result) if state.result else []
            options = page.stage.options(call.values)
            made = export.write_files(state, options, rows, results_folder())
            return {page.files: gr.update(value=made, visible=True)}

        def link(call: Call) -> Shown:
            state = call[page.state]
            if state is None:
                return {}
            query = link_to(state, call[page.model], page.tabs[state.tab], call)
            return {page.link_box: gr.update(value=query, visible=True)}

        on.on_view(page.make_files.click, make_files, self.context, [page.files])
        linked = on.on_view(page.link.click, link, [*self.context, *self.fields], [page.link_box])
        on.on_view(linked.then, None, [page.link_box], [page.link_box], js=script("link"))


def picked(state: ViewState, what: str) -> ViewState:
    """The state with something chosen in view: `layer:word`, `layer:`, or `frame:number`."""
    kind, _, number = what.partition(":")
    if kind == "frame" and number.isdigit() and int(number) < len(state.preview.frames):
        return dataclasses.replace(state, frame=int(number))
    result = state.result
    if result is None or not kind.isdigit() or int(kind) >= len(result.layers):
        return state
    layer, word = int(kind), int(number) if number.isdigit() else None
    explanation = result.layers[layer].explanation
    if word is not None and (explanation is None or word >= len(explanation.maps)):
        return state
    return state.with_result(state.tab, result.focus(layer, word))


def link_to(state: ViewState, model: str, tab: Tab, call: Call) -> str:
    """The query string that opens the same image, tab, texts and settings."""
    values = tab.known(call.values) if tab.asks else {}
    changed = {name: value for name, value in values.items() if value != tab.defaults.get(name)}
    query = {"tab": tab.name, "model": model}
    if changed:
        query["fields"] = json.dumps({tab.name: changed}, separators=(",", ":"))
    origin = f"{state.origin}&" if state.origin else ""
    return origin + urlencode(query)
