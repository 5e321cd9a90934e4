"""ASGI middleware in front of Gradio: health checks, a guard of the API, and a rate limit."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict, deque
from ipaddress import ip_address
from typing import Any

import gradio as gr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from x2vlm.errors import Cancelled, ParameterError, X2VLMError

from .. import limits
from .admission import MINUTE, RETRY_AFTER
from .gradio_patches import cancel_job, knows_event
from .log import log_failure
from .messages import CRASHED, FROM_PAGE, message
from .queue import Busy
from .runner import Runner

API = "/gradio_api/"
ADDRESSES = 10_000  # kept at most; then those that were quiet for a minute are forgotten
TOO_OFTEN = "{} jobs within a minute came from your address, which is the limit. Wait a minute."
TOO_LARGE = (
    "A request body may have {} MB, files apart. Send files to /gradio_api/upload and name them "
    "in the call."
)
NO_ENDPOINT = "There is no such endpoint. There are {}, called by POST /gradio_api/call/NAME."
NO_EVENT = "There is no such event: its result was read already, or it was never asked for."
BAD_UPLOAD = "Send the file as multipart/form-data, in the field `files` and with a file name."
BAD_REQUEST = "This request could not be understood. See /gradio_api/info for the endpoints."
BAD_CANCEL = "Name the job by session_hash and event_id, two texts."
STOPPED = Cancelled("Stopped, as you asked.", "job/cancelled")


class HealthCheck:
    """`/healthz`: the server lives; `/readyz`: the default model answers."""

    def __init__(self, app: ASGIApp, runner: Runner):
        self.app, self.runner = app, runner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/healthz", "/readyz"):
            await self.app(scope, receive, send)
            return
        health: dict[str, Any] = {
            "model": self.runner.models.default,
            "busy": self.runner.jobs.busy,
        }
        trouble = ""
        if scope["path"] == "/readyz":
            trouble = await asyncio.to_thread(self.runner.trouble)
            health["trouble"] = trouble
        await JSONResponse(health, 503 if trouble else 200)(scope, receive, send)


class Refused(Exception):
    """A request that is answered here, with a status and an error."""

    def __init__(self, status: int, error: X2VLMError):
        super().__init__(status)
        self.status, self.error = status, error


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
        headers = Headers(scope=scope)
        try:
            body = b""
            if scope["method"] == "POST" and not is_form(headers):
                body = await read_body(receive)
                receive = replayed(body, receive)
            answer = await self._answer(scope, body, headers)
        except Refused as refused:
            detail = message(refused.error, headers)
            answer = JSONResponse({"detail": detail}, refused.status)
        if answer is None:
            await self._pass_on(scope, receive, send, headers)
        else:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, body: bytes, headers: Headers) -> JSONResponse | None:
        """The answer, or None for what goes on to Gradio."""
        route = scope["path"].partition(API)[2].strip("/").split("/")
        posted = scope["method"] == "POST"
        if posted and route == ["cancel"]:
            return await self._cancel(parsed(body), headers)
        # The routes past the queue are for the page's events that only redraw.
        if posted and route[0] in ("run", "api") and FROM_PAGE not in headers:
            raise Refused(404, self._no_endpoint())
        if route[0] != "call":
            return None
        by_name = route[1:2] == ["v2"]
        name, *event = route[2:] if by_name else route[1:] or [""]
        if name not in self.endpoints:
            raise Refused(404, self._no_endpoint())
        if not posted and event and not knows_event(self.demo._queue, event[0]):
            raise Refused(404, ParameterError(NO_EVENT, "job/unknown"))
        if posted and by_name and isinstance(values := parsed(body), dict):
            return self._check_names(name, values, headers)
        return None

    def _no_endpoint(self) -> ParameterError:
        names = ", ".join(f"/{name}" for name in self.endpoints)
        return ParameterError(NO_ENDPOINT.format(names), "api/unknown")

    def _check_names(
        self, name: str, values: dict[str, Any], headers: Headers
    ) -> JSONResponse | None:
        """Refuse a call by names where one is unknown or a required one is missing."""
        try:
            ordered = self.endpoints[name].ordered(values)
        except ParameterError as error:
            raise Refused(422, error) from None
        complaints = self.endpoints[name].complaints(ordered, headers)
        return JSONResponse({"detail": complaints}, 422) if complaints else None

    async def _cancel(self, body: Any, headers: Headers) -> JSONResponse:
        body = body if isinstance(body, dict) else {}
        session, event = body.get("session_hash"), body.get("event_id")
        if not isinstance(session, str) or not isinstance(event, str):
            raise Refused(422, ParameterError(BAD_CANCEL, "param/missing"))
        found = await cancel_job(self.demo._queue, session, event, message(STOPPED, headers))
        return JSONResponse({"success": found})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        """To Gradio; what fails there before it has begun to answer is answered in words."""
        begun = False

        async def noted(event: Message) -> None:
            nonlocal begun
            begun = True
            await send(event)

        try:
            await self.app(scope, receive, noted)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            if begun:
                raise
            upload = scope["path"].rstrip("/").endswith("/upload")
            error = ParameterError(BAD_UPLOAD if upload else BAD_REQUEST, "api/request")
            await JSONResponse({"detail": message(error, headers)}, 400)(scope, receive, send)
        except Exception:
            if begun:
                raise
            log_failure("a request")
            await JSONResponse({"detail": message(CRASHED, headers)}, 500)(scope, receive, send)


def is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("multipart/form-data")


async def read_body(receive: Receive) -> bytes:
    """The whole body, of at most `BODY_MEGABYTES`.

    Raises:
        Refused: it is larger. The rest was received and dropped, so that the client reads why.
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
        raise Refused(413, ParameterError(TOO_LARGE.format(limits.BODY_MEGABYTES), "api/bytes"))
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def parsed(body: bytes) -> Any:
    """The body's JSON value; None where it is none, which Gradio says itself."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


class RateLimit:
    """Notes when a job was asked for, and refuses an address that asks for too many.

    Args:
        quota: jobs that one address may ask for in a minute; None where addresses say nothing, as
            on one's own machine.
    """

    def __init__(self, app: ASGIApp, quota: int | None = None):
        self.app, self.quota = app, quota
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond: Any = self.app
        if scope["type"] == "http" and scope["method"] == "POST" and asks_for_job(scope["path"]):
            now = time.monotonic()
            scope.setdefault("state", {})["asked"] = now
            if self.quota is not None and self._too_often(address(scope), now):
                error = Busy(TOO_OFTEN.format(self.quota), "busy/quota")
                detail = message(error, Headers(scope=scope))
                respond = JSONResponse({"detail": detail}, 429, {RETRY_AFTER: str(MINUTE)})
        await respond(scope, receive, send)

    def _too_often(self, who: str, now: float) -> bool:
        times = self._asked[who]
        while times and now - times[0] > MINUTE:
            times.popleft()
        if len(times) >= self.quota:
            return True
        times.append(now)
        if len(self._asked) > ADDRESSES:
            recent = {who: times for who, times in self._asked.items() if now - times[-1] <= MINUTE}
            self._asked = defaultdict(deque, recent)
        return False


def asks_for_job(path: str) -> bool:
    return path.endswith("/queue/join") or f"{API}call/" in path


def address(scope: Scope) -> str:
    """The client's address: the last public one among `X-Forwarded-For` and the peer.

    Every proxy appends the address that it served to the header. The client may have made up what
    stands before the last public address; after it come proxies of the host's own network.
    """
    peer = (scope["client"] or ("",))[0]
    forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1").split(",")
    return next(
        (place for place in (peer, *map(str.strip, reversed(forwarded))) if _is_global(place)), peer
    )


def _is_global(place: str) -> bool:
    try:
        return ip_address(place).is_global
    except ValueError:
        return False
