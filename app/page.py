"""The parts that all tabs share, and the two kinds of event: of the model (queued, checked first)
and of the view (at once)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from . import limits
from .examples import Example
from .handlers import Handlers
from .service.events import as_job, report_errors
from .service.messages import complaint
from .view import Shown, loaded

Rules = dict[Any, Callable[[Any], Any]]
EACH = {"select", "upload", "stop_recording", "clear"}


class Page:
    """Components that tabs share, filled while the page is laid out (`demo.py`).

    Attributes:
        handlers: the model's events.
        first: stored results of the first example by task, for the first paint; first_shown: it on
            the stage.
        shown, look: states of what is in view and how.
        model: the chosen model's name.
        stage: outputs of `view.present`; redraw: outputs of `view.redraw`.
        sides: the four number fields of the region.
        tabs: the `gr.Tabs`; find, inspect ...: what each tab's `build` returned.
    """

    def __init__(self, handlers: Handlers, first: Example | None, shown: Shown | None):
        self.handlers, self.example, self.first_shown = handlers, first, shown
        self.first = first.results if first else {}
        self.model_events: list[Any] = []

    def text(self, field: str) -> str:
        """What the first example puts into a tab's field."""
        return getattr(self.example.texts, field) if self.example else ""

    def on_model(
        self,
        triggers: Any,
        fn: Callable,
        inputs: list,
        outputs: list,
        rules: Rules | None = None,
        **options: Any,
    ) -> Any:
        """An event that calls the model: one queue for all of them, fields with rules checked
        before a place in it is taken."""
        event = bind(
            triggers,
            as_job(self.handlers.runner.jobs, fn),
            inputs,
            outputs,
            api_name=f"on_{fn.__name__}",
            api_visibility="private",
            validator=checks(inputs, {self.shown: loaded} | rules) if rules else None,
            concurrency_id="model",
            concurrency_limit=limits.AT_ONCE,
            trigger_mode=mode(triggers, "once"),
            **({"show_progress": "minimal", "show_progress_on": card_of(outputs)} | options),
        )
        self.model_events.append(event)
        return event

    def on_view(
        self, triggers: Any, fn: Callable | None, inputs: list, outputs: list, **options: Any
    ) -> Any:
        """An event that only changes what is in view."""
        settings = {
            "queue": False,
            "trigger_mode": mode(triggers, "always_last"),
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        name = f"on_{fn.__name__}" if fn else "in_browser"
        return bind(
            triggers,
            report_errors(fn) if fn else None,
            inputs,
            outputs,
            api_name=name,
            **(settings | options),
        )

    @property
    def context(self) -> list[Any]:
        """The first inputs of every model event."""
        return [self.shown, self.look, self.model]


def card_of(outputs: list) -> Any:
    """Where stages of work are shown: the tab's card, or the canvas for what puts media on the
    stage."""
    return next((component for component in outputs if isinstance(component, gr.HTML)), None)


def initial(update: dict[str, Any] | None) -> dict[str, Any]:
    """An update as arguments of a component that is being made; hidden where there is none."""
    return {k: v for k, v in update.items() if k != "__type__"} if update else {"visible": False}


def bind(triggers: Any, *args: Any, **options: Any) -> Any:
    """One event for one or several triggers; follow-ups such as `event.success` come alone."""
    return (
        gr.on(triggers, *args, **options)
        if isinstance(triggers, list)
        else triggers(*args, **options)
    )


def mode(triggers: Any, otherwise: str) -> str:
    """What becomes of an event that comes while the last one is under way.

    Of those in `EACH` none may be lost: with "always_last" the browser would send the first one's
    `gr.SelectData` in place of the last one's, and would forget the last one where the first is
    refused.
    """
    each = triggers if isinstance(triggers, list) else [triggers]
    return (
        "multiple"
        if any(getattr(trigger, "event_name", "") in EACH for trigger in each)
        else otherwise
    )


def checks(inputs: Sequence[Any], rules: Rules) -> Callable[..., list[dict[str, Any]]]:
    """A validator: one `gr.validate` an input, from rules that raise.

    What is wrong with a state, which has no field to mark, is told at the first visible field that
    has a rule.
    """

    def validator(*values: Any) -> list[dict[str, Any]]:
        said = [
            complaint(rules.get(component), value)
            for component, value in zip(inputs, values, strict=True)
        ]
        hidden = next(
            (
                said[k]
                for k, component in enumerate(inputs)
                if said[k] and isinstance(component, gr.State)
            ),
            "",
        )
        visible = [
            k
            for k, component in enumerate(inputs)
            if component in rules and not isinstance(component, gr.State)
        ]
        if hidden and visible:
            said[visible[0]] = hidden
        return [gr.validate(not message, message) for message in said]

    return validator
