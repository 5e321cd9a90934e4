"""What every tab is: fields, a button, a result that the stage shows as well."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gradio as gr

from x2vlm.errors import CheckpointError, TextError
from x2vlm.results import Explanation

from . import html
from .components import Pick
from .i18n import t
from .service.runner import Runner
from .state import Layer, Result, Texts, ViewState

Values = dict[str, Any]
Shown = dict[Any, Any]
Choices = Sequence[tuple[Any, str]]


@dataclass
class Asker:
    """The model of one visitor, on what is on the stage."""

    runner: Runner
    session: str
    state: ViewState | None
    model: str

    def __call__(self, task: str, /, *args: Any, **options: Any) -> Any:
        """Call a task on the stage's media."""
        return self.on_frame(None, task, *args, **options)

    def on_frame(self, frame: int | None, task: str, /, *args: Any, **options: Any) -> Any:
        """Call a task on one frame of a video, as an image of its own; on all media with None."""
        return self.of_model(self.model, frame, task, *args, **options)

    def of_model(
        self, model: str, frame: int | None, task: str, /, *args: Any, **options: Any
    ) -> Any:
        """Call a task of another model."""
        media = dataclasses.replace(self.state.media, frame=frame)
        return self.runner.run(task, media, model, self.session, *args, **options)

    def of_files(self, paths: Sequence[str], task: str, /, *args: Any) -> list[tuple[Any, Any]]:
        """Call a task on each of other uploaded images: small copy and result, or None and the
        error."""
        return self.runner.run_each(task, paths, self.model, self.session, *args)

    def tried(self, task: str, /, *args: Any, **options: Any) -> Any:
        """As a call; None where the model lacks the head, or the text names nothing."""
        try:
            return self(task, *args, **options)
        except (CheckpointError, TextError):
            return None

    def explain(self, text: str, **options: Any) -> Explanation | None:
        """The maps of a text, where the model can explain it."""
        return self.tried("explain", text, **options)

    @property
    def info(self) -> Any:
        """`ModelInfo` of the model asked."""
        return self.runner.models[self.model].info

    def inputs(self, values: Values) -> Values:
        """All that a result depends on."""
        return inputs(self.state, self.model, values)


def inputs(state: ViewState, model: str, values: Values) -> Values:
    """All that a result depends on: the tab's fields, media, model, region and frame."""
    return values | {
        "media": state.media.path,
        "model": model,
        "region": state.region,
        "frame": state.video_frame,
    }


@dataclass(frozen=True)
class HandOver:
    """A button that takes a result to another tab and runs it there.

    Attributes:
        key: text of the button.
        to: name of the tab.
        fill: result -> values of that tab's fields; empty where there is nothing to hand over.
    """

    key: str
    to: str
    fill: Callable[[Result], Values]


@dataclass(frozen=True)
class Action:
    """A slower look at a result, on its own button.

    Attributes:
        trigger: the button's event.
        run: (asker, field values) -> {component: value}.
        shows: the components that `run` changes.
    """

    trigger: Any
    run: Callable[[Asker, Values], Shown]
    shows: tuple[Any, ...]


class Tab:
    """A tab. Subclasses say what they ask (`build_fields`, `run`) and how they show it (`show`).

    Attributes:
        name: its id; texts are `tab_<name>`, `run_<name>`, `empty_<name>`, `region_<name>`.
        task: what the model must be able to do.
        defaults: name of a field -> its first value. These are what a result depends on.
        rules: name of a field -> its check, made before the call takes a place in the queue.
        submits: one-line fields in which Enter presses the button.
        hand_overs: where a result can be taken.
        asks: whether it has a button and a result for the stage; the others have actions alone.
        tours: whether examples and new scenes come with a result of it.
    """

    name: ClassVar[str] = ""
    task: ClassVar[str | None] = None
    defaults: ClassVar[Values] = {}
    rules: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    submits: ClassVar[tuple[str, ...]] = ()
    hand_overs: ClassVar[tuple[HandOver, ...]] = ()
    asks: ClassVar[bool] = True
    tours: ClassVar[bool] = True

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.buttons: list[Any] = []

    # what is on the page

    def offer(self, models: Choices) -> None:
        """The models of the page's list, before the tab is laid out."""

    def build(self, values: Values) -> None:
        """Lay out the tab; `values` are the first ones of its fields."""
        with gr.Column(elem_classes="ask"):
            self.build_fields(values)
            self.note = gr.HTML(elem_id=f"note-{self.name}", elem_classes="tab-note")
            with gr.Row(elem_classes="go"):
                self.go = gr.Button(
                    t(f"run_{self.name}"), variant="primary", elem_id=f"run-{self.name}"
                )
                gr.HTML(html.note("submit_hint"), elem_classes="hint")
        with gr.Column(elem_classes="result"):
            self.card = Pick(elem_id=f"card-{self.name}")
            self.build_result()
        with gr.Row(elem_classes="hand-overs"):
            self.buttons = [
                gr.Button(t(hand.key), size="sm", elem_id=f"{self.name}-to-{hand.to}")
                for hand in self.hand_overs
            ]
        with gr.Accordion(t("advanced"), open=False, elem_id=f"options-{self.name}"):
            self.build_options(values)

    def build_fields(self, values: Values) -> None:
        """The fields above the button, into `self.fields`."""

    def build_options(self, values: Values) -> None:
        """The fields in the drawer below, into `self.fields`."""

    def build_result(self) -> None:
        """What a result needs besides its card."""

    def actions(self) -> Iterable[Action]:
        """The slower looks."""
        return ()

    def picks(self) -> Iterable[Any]:
        """Components whose parts can be chosen, for the stage."""
        return (self.card,) if self.asks else ()

    # what it does

    def suggest(self, texts: Texts) -> Values:
        """Values of the fields that suit an image."""
        return {}

    def own(self, info: Any) -> Values:
        """Values of fields that are the model's own (`ModelInfo`)."""
        return {}

    def adapt(self, info: Any) -> Shown:
        """What the fields offer with this model."""
        return {}

    def run(self, ask: Asker, values: Values) -> Result:
        """Ask the model."""
        raise NotImplementedError

    def layers(self, found: tuple[Any, ...], maps: tuple[Any, ...] = ()) -> tuple[Layer, ...]:
        """What can be shown alone of found values, and of the maps that were made for them."""
        return ()

    def result(
        self,
        ask: Asker,
        values: Values,
        task: str,
        found: Iterable[Any],
        maps: Iterable[Any] = (),
        **options: Any,
    ) -> Result:
        """A result of this tab, with what it was made with."""
        found = tuple(found)
        settings = {"model": ask.model, "hash": ask.info.hash}
        settings |= {key: value for key, value in options.items() if value is not None}
        layers = self.layers(found, tuple(maps))
        return Result(task, found, layers, ask.inputs(values), settings)

    def timed(self, ask: Asker, values: Values) -> Result:
        """`run`, with its seconds."""
        began = time.monotonic()
        result = self.run(ask, values)
        return dataclasses.replace(result, seconds=round(time.monotonic() - began, 3))

    def remember(self, state: ViewState, result: Result) -> ViewState:
        """What is kept of a new result besides itself."""
        return state

    def show(self, state: ViewState | None) -> Shown:
        """{component: value} for this tab's result of a state, or its empty state."""
        if not self.asks:
            return {}
        result = state.results.get(self.name) if state else None
        empty = html.note(f"empty_{self.name}", "empty")
        return {self.card: self.render(result, state) if result else empty} | {
            button: gr.update(visible=result is not None) for button in self.buttons
        }

    def render(self, result: Result, state: ViewState) -> str:
        """The result as HTML."""
        raise NotImplementedError

    def told(self, state: ViewState | None, model: str, values: Values) -> str:
        """The line below the fields: is a region obeyed, was the result made with other inputs."""
        if state is None:
            return ""
        said = html.note(f"region_{self.name}", "region-on") if state.region else ""
        result = state.results.get(self.name)
        if result and not result.made_with(inputs(state, model, values)):
            said += html.note("stale", "stale")
        return said

    def export(self, result: Result) -> list[dict[str, Any]]:
        """Rows of the CSV file."""
        return []

    def known(self, values: dict[Any, Any]) -> Values:
        """Values of this tab's fields by name, of an event's values by component."""
        return {name: values[component] for name, component in self.fields.items()}
