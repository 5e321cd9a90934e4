"""At the server's door: when a job was asked for, who may ask for how many, and whether the server
is well."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict, deque
from ipaddress import ip_address
from typing import Any

from gradio.queueing import Queue
from gradio_client.utils import is_file_obj_with_meta, traverse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from x2vlm.errors import MediaError

from . import limits
from .components import uploaded
from .refusals import told
from .runtime import Busy, Studio

MINUTE = 60
LATER = "Retry-After"  # seconds, for clients that try again by themselves
ADDRESSES = 10_000  # kept at most; then those that were quiet for a minute are forgotten
TOO_OFTEN = "{} jobs within a minute came from your address, which is the limit. Wait a minute."
TOO_MANY = (
    "{} of your jobs wait or run already, which is the limit. Wait until one has ended, or "
    "stop one."
)
FULL = (
    "{} jobs are waiting, as many as may, and yours was not started. They take about {} s: try "
    "again then."
)


class Doorman:
    """ASGI middleware: `/healthz` (the server lives), `/readyz` (the model answers), and a stamp
    and a quota for jobs.

    Args:
        quota: jobs that one address may ask for in a minute; None where addresses say nothing, as
            on one's own machine.
    """

    def __init__(self, app: ASGIApp, studio: Studio, quota: int | None = None):
        self.app, self.studio, self.quota = app, studio, quota
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond: Any = self.app
        if scope["type"] == "http":
            respond = await self._answer(scope) or self.app
        await respond(scope, receive, send)

    async def _answer(self, scope: Scope) -> JSONResponse | None:
        """What is answered here; None for all else."""
        path = scope["path"]
        health = {"model": self.studio.models.default, "busy": self.studio.gate.busy}
        if path == "/healthz":
            return JSONResponse(health)
        if path == "/readyz":
            trouble = await asyncio.to_thread(self.studio.trouble)
            return JSONResponse(health | {"trouble": trouble}, 503 if trouble else 200)
        if scope["method"] == "POST" and (
            path.endswith("/queue/join") or "/gradio_api/call/" in path
        ):
            now = time.monotonic()
            scope.setdefault("state", {})["asked"] = now
            if self.quota is not None and self._too_often(address(scope), now):
                said = told(Busy(TOO_OFTEN.format(self.quota), "busy/quota"), Headers(scope=scope))
                return JSONResponse({"detail": said}, 429, {LATER: str(MINUTE)})
        return None

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


def address(scope: Scope) -> str:
    """Who asks: the last public address on the request's way, else the peer's.

    The way is `X-Forwarded-For`, to which every proxy appends whom it served, and then the peer.
    What stands before the last public address the client may have made up; after it come the
    proxies of the host's own network.
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


def admit(queue: Queue) -> None:
    """From now on refuse, in words, a job for which there is no place, one over its session's
    quota, files not uploaded, and fields of a public endpoint that its rules refuse.

    A call without a session is one of its own, and so is one by MCP.
    """
    push, joining = queue.push, []

    async def admitted(body: Any, request: Request, username: str | None) -> Any:
        session = body.session_hash
        jobs = [*joining, *(event.session_hash for event in queue.event_ids_to_events.values())]
        if (
            session
            and session != mcp_session(queue)
            and jobs.count(session) >= limits.JOBS_A_SESSION
        ):
            error = Busy(TOO_MANY.format(limits.JOBS_A_SESSION), "busy/quota")
            raise HTTPException(429, told(error, request.headers), {LATER: str(MINUTE)})
        waiting = len(queue) + len(joining)
        if waiting >= queue.max_size:
            seconds = backlog(queue, waiting)
            error = Busy(FULL.format(waiting, seconds), "busy/queue")
            raise HTTPException(503, told(error, request.headers), {LATER: str(seconds)})
        try:
            traverse(body.data, lambda file: uploaded(file["path"]), is_file_obj_with_meta)
        except MediaError as error:  # Gradio refuses too, but says nothing
            raise HTTPException(400, told(error, request.headers)) from None
        check = queue.blocks.field_checks.get(body.fn_index)
        if check and (fields := check(body.data, request.headers)):
            return False, fields, "validator_error"
        joining.append(session)  # its fields are checked before it counts as waiting
        try:
            return await push(body, request, username)
        finally:
            joining.remove(session)

    queue.push = admitted


def mcp_session(queue: Queue) -> str | None:
    """The session by which Gradio's MCP server calls for all of its visitors: a random one that it
    tells nobody."""
    client = getattr(queue.blocks.mcp_server_obj, "_client_instance", None)
    return client.session_hash if client else None


def backlog(queue: Queue, waiting: int) -> int:
    """Seconds that so many waiting jobs will take, by the mean of the model's jobs that have ended;
    a minute before any has."""
    times = [time for fn, time in queue.process_time_per_fn.items() if fn.concurrency_id == "model"]
    ended = sum(time.count for time in times)
    if not ended:
        return MINUTE
    return math.ceil(waiting * sum(time.process_time for time in times) / ended / limits.AT_ONCE)
