"""ASGI middleware that guards the API in front of Gradio: which routes there are, how much a
request may send, and errors in words."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from x2vlm.errors import Cancelled, ParameterError

from .. import limits
from .admission import check_values, refusal
from .gradio_patches import cancel_job, knows_event, too_large_upload
from .log import log_failure
from .messages import CRASHED, FROM_PAGE, message

API = "/gradio_api/"
# Below API, by the first part of their path. Gradio has more: streams of media, its editor of
# source code, screen recordings, stored histories, a proxy.
ROUTES = {
    *("call", "cancel", "queue", "run", "api", "upload", "upload_progress", "file", "reset"),
    *("info", "openapi.json", "heartbeat", "startup-events", "theme.css", "app_id", "mcp"),
    *("user", "token", "login_check"),
}
TOO_LARGE = (
    "A request body may have {} MB, files apart. Send files to /gradio_api/upload and name them "
    "in the call."
)
TOO_MANY_VALUES = "A call may have {} values. Send fewer at a time."
TOO_LARGE_UPLOAD = (
    "A file may have {} MB, and the files of one request {} MB in all. Send smaller or fewer ones."
)
NO_ROUTE = "There is no such route. See /gradio_api/info for the endpoints."
NO_ENDPOINT = "There is no such endpoint. There are {}, called by POST /gradio_api/call/NAME."
NO_EVENT = "There is no such event: its result was read already, or it was never asked for."
BAD_UPLOAD = "Send the file as multipart/form-data, in the field `files` and with a file name."
BAD_REQUEST = "This request could not be understood. See /gradio_api/info for the endpoints."
BAD_CANCEL = "Name the job by session_hash and event_id, two texts."
STOPPED = Cancelled("Stopped, as you asked.", "job/cancelled")


class ApiGuard:
    """Answers in words what Gradio answers by an empty error: too large bodies, unknown endpoints,
    parameters and events, uploads without a file name. Cancels one job where Gradio would cancel
    all of the session.

    Args:
        demo: the app, with its public `endpoints`.
    """

    def __init__(self, app: ASGIApp, demo: gr.Blocks):
        self.app, self.demo = app, demo
        self.endpoints = {endpoint.name: endpoint for endpoint in demo.endpoints.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, answer = Headers(scope=scope), None
        _, api, path = scope["path"].partition(API)
        route = path.strip("/").split("/")
        try:
            if scope["method"] != "POST":
                body = b""
            elif route == ["upload"]:
                body, receive = b"", limited(receive)
            else:
                body = await read_body(receive, headers)
                receive = replayed(body, receive)
            if api:
                answer = await self._answer(scope["method"] == "POST", route, body, headers)
            if answer is None:
                await self._pass_on(scope, receive, send, headers, route)
        except HTTPException as refused:
            answer = told(refused, route, headers)
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(
        self, posted: bool, route: list[str], body: bytes, headers: Headers
    ) -> JSONResponse | None:
        """The answer, or None for what goes on to Gradio."""
        first = route[0].partition("=")[0]  # of `file=PATH`, too
        if first not in ROUTES:
            raise refusal(404, ParameterError(NO_ROUTE, "api/unknown"), headers)
        if posted and route == ["cancel"]:
            return await self._cancel(parsed(body), headers)
        if posted and first in ("run", "api"):  # past the queue
            if FROM_PAGE not in headers:  # whose events that only redraw go there
                raise self._no_endpoint(headers)
            values = parsed(body)
            if isinstance(values, dict) and isinstance(values.get("data"), list):
                check_values(self.demo, values.get("fn_index"), values["data"], headers)
        if first != "call":
            return None
        by_name = route[1:2] == ["v2"]
        name, *event = (route[2:] if by_name else route[1:]) or [""]
        if name not in self.endpoints:
            raise self._no_endpoint(headers)
        if not posted and not knows_event(self.demo._queue, "/".join(event)):
            raise refusal(404, ParameterError(NO_EVENT, "job/unknown"), headers)
        if posted and by_name and isinstance(values := parsed(body), dict):
            return self._check_names(name, values, headers)
        return None

    def _no_endpoint(self, headers: Headers) -> HTTPException:
        names = ", ".join(f"/{name}" for name in self.endpoints)
        return refusal(404, ParameterError(NO_ENDPOINT.format(names), "api/unknown"), headers)

    def _check_names(
        self, name: str, values: dict[str, Any], headers: Headers
    ) -> JSONResponse | None:
        """Refuse a call by names where one is unknown or a required one is missing."""
        try:
            ordered = self.endpoints[name].ordered(values)
        except ParameterError as error:
            raise refusal(422, error, headers) from None
        complaints = self.endpoints[name].complaints(ordered, headers)
        return JSONResponse({"detail": complaints}, 422) if complaints else None

    async def _cancel(self, body: Any, headers: Headers) -> JSONResponse:
        body = body if isinstance(body, dict) else {}
        session, event = body.get("session_hash"), body.get("event_id")
        if not isinstance(session, str) or not isinstance(event, str):
            raise refusal(422, ParameterError(BAD_CANCEL, "param/missing"), headers)
        found = await cancel_job(self.demo._queue, session, event, message(STOPPED, headers))
        return JSONResponse({"success": found})

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, route: list[str]
    ) -> None:
        """To Gradio; what fails there before it has begun to answer is answered in words.

        What fails later ends the connection. It is not raised, as the server would log its text.
        """
        begun = False

        async def noted(event: Message) -> None:
            nonlocal begun
            begun = True
            await send(event)

        try:
            await self.app(scope, receive, noted)
        except HTTPException:
            if not begun:
                raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            if begun:
                log_failure("a request")
                return
            text = BAD_UPLOAD if route == ["upload"] else BAD_REQUEST
            raise refusal(400, ParameterError(text, "api/request"), headers) from None
        except Exception:
            log_failure("a request")
            if not begun:
                raise refusal(500, CRASHED, headers) from None


def told(refused: HTTPException, route: list[str], headers: Headers) -> Response:
    """The answer to a refused request. The page shows what an upload is told as it stands."""
    if route == ["upload"] and FROM_PAGE in headers:
        return PlainTextResponse(refused.detail, refused.status_code)
    return JSONResponse({"detail": refused.detail}, refused.status_code)


async def read_body(receive: Receive, headers: Headers) -> bytes:
    """The whole body, of at most `BODY_MEGABYTES` and `BODY_VALUES`.

    Raises:
        HTTPException: it has more (413). The rest was received and dropped, so that the client
            reads why.
    """
    body, size, more = bytearray(), 0, True
    most = limits.BODY_MEGABYTES * 2**20
    while more:
        event = await receive()
        chunk, more = event.get("body", b""), event.get("more_body", False)
        size += len(chunk)
        if size <= most:
            body += chunk
        elif size > limits.UPLOAD_MEGABYTES * 2**20:
            break
    if size > most:
        text = TOO_LARGE.format(limits.BODY_MEGABYTES)
        raise refusal(413, ParameterError(text, "api/bytes"), headers)
    if body.count(b",") > limits.BODY_VALUES:
        text = TOO_MANY_VALUES.format(limits.BODY_VALUES)
        raise refusal(413, ParameterError(text, "api/bytes"), headers)
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def limited(receive: Receive) -> Receive:
    """A `receive` for an upload of at most `UPLOADS_MEGABYTES`."""
    size = 0

    async def receive_some() -> Message:
        nonlocal size
        event = await receive()
        size += len(event.get("body", b""))
        if size > limits.UPLOADS_MEGABYTES * 2**20:
            raise too_large_upload()
        return event

    return receive_some


def refuse_upload(status: int, request: Request) -> HTTPException:
    """What is said to an upload that is too large (413), or not understood (400)."""
    if status == 413:
        text = TOO_LARGE_UPLOAD.format(limits.UPLOAD_MEGABYTES, limits.UPLOADS_MEGABYTES)
        return refusal(413, ParameterError(text, "image/bytes"), request.headers)
    return refusal(400, ParameterError(BAD_UPLOAD, "api/request"), request.headers)


def parsed(body: bytes) -> Any:
    """The body's JSON value; None where it is none, which Gradio says itself."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
