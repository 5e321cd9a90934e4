"""Two kinds of event: of the model (queued, fields checked first) and of the view (at once).

A handler takes a `Call` and returns {component: value}; what it leaves out stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from x2vlm.errors import Cancelled, X2VLMError

from . import limits
from .i18n import now
from .service.events import as_job, report_errors
from .service.messages import CODE, complaint, message
from .service.queue import JobQueue

EACH = {"select", "upload", "stop_recording", "clear"}
Rules = dict[Any, Callable[[Any], Any]]
Handler = Callable[["Call"], dict[Any, Any]]


@dataclass(frozen=True)
class Call:
    """One event: its inputs by component, who sent it, and what was chosen."""

    values: dict[Any, Any]
    request: gr.Request
    chosen: Any = None

    def __getitem__(self, component: Any) -> Any:
        return self.values[component]

    @property
    def session(self) -> str:
        return self.request.session_hash or ""


class Wiring:
    """Binds handlers to components.

    Attributes:
        errors: code of an error -> what its sentence does on the page instead of a toast.
    """

    def __init__(self, jobs: JobQueue):
        self.jobs = jobs
        self.errors: dict[str, Callable[[str], dict[Any, Any]]] = {}

    def on_model(
        self,
        triggers: Any,
        handler: Handler,
        inputs: Iterable[Any],
        outputs: Iterable[Any],
        rules: Rules | None = None,
        **options: Any,
    ) -> Any:
        """An event that calls the model: one queue for all of them, fields with rules checked
        before a place in it is taken."""
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
        fn = as_job(self.jobs, self._called(handler, inputs, triggers))
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
        inputs = list(inputs)
        settings = {
            "queue": False,
            "trigger_mode": trigger_mode(triggers, "always_last"),
            "show_progress": "hidden",
            "api_visibility": "private",
            "api_name": f"on_{handler.__name__}" if handler else "in_browser",
        }
        fn = report_errors(self._called(handler, inputs, triggers)) if handler else None
        return bind(triggers, fn, inputs, list(outputs), **(settings | options))

    def _called(self, handler: Handler, inputs: list[Any], triggers: Any) -> Callable[..., Any]:
        def answer(values: tuple[Any, ...], request: gr.Request, chosen: Any) -> dict[Any, Any]:
            try:
                call = Call(dict(zip(inputs, values, strict=True)), request, chosen)
                # Gradio takes an empty dictionary for a value.
                return handler(call) or gr.skip()
            except Cancelled:
                gr.Info(now("stopped"))
                return gr.skip()
            except X2VLMError as error:
                sentence = CODE.sub("", message(error))
                if error.code in self.errors:
                    return self.errors[error.code](sentence)
                raise gr.Error(sentence, print_exception=False) from None

        def called(request: gr.Request, *values: Any) -> dict[Any, Any]:
            return answer(values, request, None)

        def chosen(request: gr.Request, event: gr.SelectData, *values: Any) -> dict[Any, Any]:
            return answer(values, request, event.value if event.value != "region" else event.index)

        fn = chosen if _chooses(triggers) else called
        fn.__name__ = handler.__name__
        return fn


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
