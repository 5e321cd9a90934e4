"""Which jobs the queue admits. The others are refused in words before they cost anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
            if complaints := check_values(queue, body, request):
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


def check_quota(queue: Queue, session: str | None, joining: list[str], request: Request) -> None:
    """Refuse (429) a session that has `JOBS_A_SESSION` jobs already."""
    if not session or session == mcp_session(queue):
        return
    if [*joining, *queued_sessions(queue)].count(session) >= limits.JOBS_A_SESSION:
        error = Busy(TOO_MANY.format(limits.JOBS_A_SESSION), "busy/quota")
        raise HTTPException(429, message(error, request.headers), {RETRY_AFTER: str(MINUTE)})


def check_room(queue: Queue, joining: list[str], request: Request) -> None:
    """Refuse (503) a job when the queue is full."""
    waiting = len(queue) + len(joining)
    if waiting >= queue.max_size:
        seconds = backlog(queue, waiting)
        error = Busy(FULL.format(waiting, seconds), "busy/queue")
        raise HTTPException(503, message(error, request.headers), {RETRY_AFTER: str(seconds)})


def check_values(queue: Queue, body: Any, request: Request) -> list[dict[str, Any]]:
    """Complete a call's values in place: missing ones at the end take their defaults.

    Returns:
        What is wrong with the values of a public endpoint, one `gr.validate` a parameter; nothing
        where they are right.

    Raises:
        HTTPException: no such function (404), too many or too few values (422), a file that was not
            uploaded (400).
    """
    blocks = queue.blocks
    endpoint, function = blocks.endpoints.get(body.fn_index), blocks.fns.get(body.fn_index)
    try:
        if function is None:
            raise ParameterError(NO_FUNCTION, "api/unknown")
        if endpoint is not None:
            body.data = endpoint.filled(body.data)
        elif len(body.data) < len(function.inputs):
            raise ParameterError(TOO_FEW.format(len(body.data)), "param/missing")
        body.data = check_files(body.data, uploaded)
    except X2VLMError as error:
        status = STATUS.get(error.code, 400)
        raise HTTPException(status, message(error, request.headers)) from None
    return endpoint.complaints(body.data, request.headers) if endpoint is not None else []


def backlog(queue: Queue, waiting: int) -> int:
    """Seconds that so many waiting jobs will take, by the mean of the jobs that have ended; a
    minute before any has."""
    mean = mean_job_seconds(queue, "model")
    return MINUTE if mean is None else math.ceil(waiting * mean / limits.AT_ONCE)
