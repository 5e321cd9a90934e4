"""Which jobs the queue admits. The others are refused in words before they cost anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.queueing import Queue
from starlette.exceptions import HTTPException
from starlette.requests import Request

from x2vlm.errors import MediaError, ParameterError, X2VLMError

from .. import limits
from .gradio_patches import (
    check_files,
    mcp_session,
    mean_job_seconds,
    names_address,
    queued_sessions,
    set_admission,
    set_owner,
    upload_folder,
)
from .messages import message
from .queue import Busy

MINUTE = 60
NO_FUNCTION = "There is no such function. See /gradio_api/info for the endpoints."
TOO_FEW = "{} values given, which are too few. See /gradio_api/info for the endpoints."
STATUS = {"api/unknown": 404, "param/missing": 422, "param/unknown": 422}
RETRY_AFTER = "Retry-After"  # seconds, for clients that try again by themselves
TOO_MANY = (
    "{} of your jobs wait or run already, which is the limit. Wait until one has ended, or "
    "stop one."
)
FULL = (
    "{} jobs are waiting, as many as may, and yours was not started. They take about {} s: try "
    "again then."
)
ONLY_UPLOADS = "Only uploaded files are read, no addresses or paths. Upload the file."


def uploaded(path: str | None) -> str | None:
    """The path, if it lies in the upload folder, where alone a visitor's files are.

    Raises:
        MediaError: anywhere else, or an address (`image/reference`).
    """
    if path is None:
        return None
    folder = upload_folder().resolve()
    if names_address(path) or not Path(path).resolve().is_relative_to(folder):
        raise MediaError(ONLY_UPLOADS, "image/reference")
    return path


def admit(queue: Queue) -> None:
    """From now on refuse a job for which there is no place, one over its session's quota, files
    that were not uploaded, and fields of a public endpoint that its rules refuse.

    A call without a session is one of its own, and so is one by MCP.
    """
    joining: list[str] = []  # sessions whose job is being checked and does not count as waiting yet

    def admission(push: Any) -> Any:
        async def admitted(body: Any, request: Request, username: str | None) -> Any:
            session = body.session_hash
            check_quota(queue, session, joining, request)
            check_room(queue, joining, request)
            body.data, complaints = check_values(
                queue.blocks, body.fn_index, body.data, request.headers
            )
            if complaints:
                return False, complaints, "validator_error"
            joining.append(session)
            if body.simple_format:
                body.session_hash = None
            try:
                accepted, event, state = await push(body, request, username)
            finally:
                joining.remove(session)
            if accepted and body.simple_format and session:
                set_owner(queue, event, session)
            return accepted, event, state

        return admitted

    set_admission(queue, admission)


def refusal(
    status: int, error: X2VLMError, headers: Mapping[str, str], seconds: int | None = None
) -> HTTPException:
    """An answer of this status with the error in words; `seconds` is when to try again."""
    retry = None if seconds is None else {RETRY_AFTER: str(seconds)}
    return HTTPException(status, message(error, headers), retry)


def check_quota(queue: Queue, session: str | None, joining: list[str], request: Request) -> None:
    """Refuse (429) a session that has `JOBS_A_SESSION` jobs already."""
    if not session or session == mcp_session(queue):
        return
    if [*joining, *queued_sessions(queue)].count(session) >= limits.JOBS_A_SESSION:
        error = Busy(TOO_MANY.format(limits.JOBS_A_SESSION), "busy/quota")
        raise refusal(429, error, request.headers, MINUTE)


def check_room(queue: Queue, joining: list[str], request: Request) -> None:
    """Refuse (503) a job when the queue is full."""
    waiting = len(queue) + len(joining)
    if waiting >= queue.max_size:
        seconds = backlog(queue, waiting)
        error = Busy(FULL.format(waiting, seconds), "busy/queue")
        raise refusal(503, error, request.headers, seconds)


def check_values(
    demo: gr.Blocks, fn_index: Any, data: list[Any], headers: Mapping[str, str]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """A call's values, of which missing ones at the end have their defaults, and what is wrong
    with those of a public endpoint: one `gr.validate` a parameter, nothing where they are right.

    Raises:
        HTTPException: no such function (404), too many or too few values (422), a file that was not
            uploaded (400).
    """
    known = isinstance(fn_index, int)
    endpoint = demo.endpoints.get(fn_index) if known else None
    function = demo.fns.get(fn_index) if known else None
    try:
        if function is None:
            raise ParameterError(NO_FUNCTION, "api/unknown")
        if endpoint is not None:
            data = endpoint.filled(data)
        elif len(data) < len(function.inputs):
            raise ParameterError(TOO_FEW.format(len(data)), "param/missing")
        data = check_files(data, uploaded)
    except X2VLMError as error:
        raise refusal(STATUS.get(error.code, 400), error, headers) from None
    return data, endpoint.complaints(data, headers) if endpoint is not None else []


def backlog(queue: Queue, waiting: int) -> int:
    """Seconds that so many waiting jobs will take, by the mean of the jobs that have ended; a
    minute before any has."""
    mean = mean_job_seconds(queue, "model")
    return MINUTE if mean is None else math.ceil(waiting * mean / limits.AT_ONCE)
