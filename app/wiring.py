"""Two kinds of event: of the model (queued, fields checked first) and of the view (at once).

A handler takes a `Call` and returns {component: value}; what it leaves out stays as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from x2vlm.errors import Cancelled, X2VLMError

from . import limits
from .i18n import now
from .service.events import as_job, report_errors
from .service.messages import CODE, complaint, message
from .service.queue import JobQueue
from .state import ViewState

EACH = {"select", "upload", "stop_recording", "clear"}
Rules = dict[Any, Callable[[Any], Any]]
Handler = Callable[["Call"], dict[Any, Any]]


@dataclass(eq=False)
class Held:
    """The stage of one session as it is now, and the lock under which it changes."""

    state: ViewState | None = None
    lock: Any = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Call:
    """One event: its inputs by component, who sent it, and what was chosen."""

    values: dict[Any, Any]
    request: gr.Request
    chosen: Any = None

    def __getitem__(self, component: Any) -> Any:
        """A component's value as the event found it; of the stage, its state as it is now."""
        value = self.values[component]
        return value.state if isinstance(value, Held) else value

    @property
    def session(self) -> str:
        return self.request.session_hash or ""


class Wiring:
    """Binds handlers to components.

    Events of one session may overlap. Each changes the stage as it is then, and alone: what
    another one did meanwhile is kept.

    Args:
        stage: holds each session's stage.

    Attributes:
        errors: code of an error -> what its sentence does on the page instead of a toast.
    """

    def __init__(self, jobs: JobQueue, stage: gr.State):
        self.jobs, self.stage = jobs, stage
        self.errors: dict[str, Callable[[str], dict[Any, Any]]] = {}
        self._held: WeakValueDictionary[str, Held] = WeakValueDictionary()
        self._finding = threading.Lock()

    def on_model(
        self,
        triggers: Any,
        handler: Handler,
        inputs: Iterable[Any],
        outputs: Iterable[Any],
        rules: Rules | None = None,
        settle: Callable[[Call, Any], dict[Any, Any]] = lambda _, shown: shown,
        **options: Any,
    ) -> Any:
        """An event that calls the model: one queue for all of them, fields with rules checked
        before a place in it is taken.

        Args:
            settle: makes what is shown of the handler's value, where that changes the stage.
        """
        inputs, outputs = list(inputs), list(outputs)
        settings = {
            "api_name": f"on_{handler.__name__}",
            "api_visibility": "private",
            "validator": checks(inputs, rules) if rules else None,
            "concurrency_id": "model",
            "concurrency_limit": limits.AT_ONCE,
            "trigger_mode": trigger_mode(triggers, "once"),
            "show_progress": "minimal",
        }
        fn = as_job(self.jobs, self._called(settle, inputs, outputs, triggers, handler))
        return bind(triggers, fn, inputs, outputs, **(settings | options))

    def on_view(
        self,
        triggers: Any,
        handler: Handler | None,
        inputs: Iterable[Any],
        outputs: Iterable[Any],
        **options: Any,
    ) -> Any:
        """An event that only changes what is in view."""
        inputs, outputs = list(inputs), list(outputs)
        settings = {
            "queue": False,
            "trigger_mode": trigger_mode(triggers, "always_last"),
            "show_progress": "hidden",
            "api_visibility": "private",
            "api_name": f"on_{handler.__name__}" if handler else "in_browser",
        }
        called = self._called(handler, inputs, outputs, triggers) if handler else None
        fn = report_errors(called) if called else None
        return bind(triggers, fn, inputs, outputs, **(settings | options))

    def _called(
        self,
        change: Callable[..., dict[Any, Any]],
        inputs: list[Any],
        outputs: list[Any],
        triggers: Any,
        work: Callable[[Call], Any] | None = None,
    ) -> Callable[..., Any]:
        """The function of an event: `work`, which may take its time, then `change` with what it
        gave, during which the session's stage stays as it is."""
        # Gradio takes an empty dictionary for a value.
        nothing = gr.skip() if outputs else None

        def answer(values: tuple[Any, ...], request: gr.Request, chosen: Any) -> Any:
            try:
                given = dict(zip(inputs, values, strict=True))
                held = given[self.stage] = self._held_by(request, given.get(self.stage))
                call = Call(given, request, chosen)
                found = (work(call),) if work else ()
                with held.lock:
                    shown = change(call, *found)
                    if self.stage in shown:
                        held.state = shown[self.stage]
                        shown = shown | {self.stage: held}
                return shown or nothing
            except Cancelled:
                gr.Info(now("stopped"))
                return nothing
            except X2VLMError as error:
                sentence = CODE.sub("", message(error))
                if error.code in self.errors:
                    return self.errors[error.code](sentence)
                raise gr.Error(sentence, print_exception=False) from None

        def called(request: gr.Request, *values: Any) -> Any:
            return answer(values, request, None)

        def chosen(request: gr.Request, event: gr.SelectData, *values: Any) -> Any:
            return answer(values, request, event.value if event.value != "region" else event.index)

        fn = chosen if _chooses(triggers) else called
        fn.__name__ = (work or change).__name__
        return fn

    def _held_by(self, request: gr.Request, known: Held | None) -> Held:
        """The stage of the session that asks, the same for events that overlap. It lives as long
        as Gradio keeps it or an event works with it."""
        session = request.session_hash or ""
        with self._finding:
            held = known or self._held.get(session) or Held()
            self._held[session] = held
        return held


def _chooses(triggers: Any) -> bool:
    """Whether the event says what was chosen; that of a tab's own button says nothing of use."""
    each = triggers if isinstance(triggers, list) else [triggers]
    chooses = [trigger for trigger in each if getattr(trigger, "event_name", "") == "select"]
    return any(not isinstance(getattr(trigger, "__self__", None), gr.Tab) for trigger in chooses)


def event_names(triggers: Any) -> set[str]:
    each = triggers if isinstance(triggers, list) else [triggers]
    return {getattr(trigger, "event_name", "") for trigger in each}


def bind(triggers: Any, *args: Any, **options: Any) -> Any:
    """One event for one or several triggers; follow-ups such as `event.success` come alone."""
    if isinstance(triggers, list):
        return gr.on(triggers, *args, **options)
    return triggers(*args, **options)


def trigger_mode(triggers: Any, otherwise: str) -> str:
    """What becomes of an event that comes while the last one is under way.

    Of those in `EACH` none may be lost: with "always_last" the browser would send the first one's
    `gr.SelectData` in place of the last one's, and would forget the last one where the first is
    refused.
    """
    return "multiple" if EACH & event_names(triggers) else otherwise


def checks(inputs: list[Any], rules: Rules) -> Callable[..., list[dict[str, Any]]]:
    """A validator: one `gr.validate` an input, from rules that raise."""

    def validator(*values: Any) -> list[dict[str, Any]]:
        said = [
            CODE.sub("", complaint(rules.get(component), value))
            for component, value in zip(inputs, values, strict=True)
        ]
        return [gr.validate(not text, text) for text in said]

    return validator
