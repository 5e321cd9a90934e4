"""A handler as an event of the server: counted, stopped when cancelled, its errors turned into
messages."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from x2vlm.errors import X2VLMError

from ..i18n import TEXT, language
from .gradio_patches import current_request
from .log import log_failure
from .messages import CRASHED, message
from .queue import STOP_FLAG, JobQueue

PROGRESS = gr.Progress()


def report_progress(share: float, stage: str) -> None:
    """Show on the page what is being done for the present event; nothing where there is none."""
    PROGRESS(share, desc=TEXT[stage][language()])


def as_job(jobs: JobQueue, handler: Callable) -> Callable:
    """A handler as an event of the server: counted, not begun when it waited too long, stopped when
    it is cancelled."""

    @report_errors
    @functools.wraps(handler)
    def begun(*args: Any, **kwargs: Any) -> Any:
        with jobs.event(seconds_waited()):
            return handler(*args, **kwargs)

    @functools.wraps(handler)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        flag = threading.Event()
        STOP_FLAG.set(flag)
        try:
            return await asyncio.to_thread(begun, *args, **kwargs)
        except asyncio.CancelledError:  # Gradio lets go of the event, but cannot end its thread
            flag.set()
            raise

    return guarded


def seconds_waited() -> float:
    """Seconds since the present event was asked for, by the timestamp of the middleware; 0
    without one."""
    request = current_request()
    asked = getattr(request.state, "asked", None) if request is not None else None
    return 0.0 if asked is None else time.monotonic() - asked


def report_errors(handler: Callable) -> Callable:
    """Turn an `X2VLMError` into its message; log anything else and tell it without its text."""

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except X2VLMError as error:
            raise gr.Error(escape(message(error), quote=False), print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log_failure(handler.__name__)
            raise gr.Error(message(CRASHED), print_exception=False) from None

    return guarded
