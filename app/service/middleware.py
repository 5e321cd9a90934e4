"""ASGI middleware: health checks, a timestamp for every job, and a rate limit per address."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .admission import MINUTE, RETRY_AFTER
from .messages import message
from .queue import Busy
from .runner import Runner

ADDRESSES = 10_000  # kept at most; then those that were quiet for a minute are forgotten
TOO_OFTEN = "{} jobs within a minute came from your address, which is the limit. Wait a minute."


class ServiceMiddleware:
    """`/healthz` (the server lives), `/readyz` (the model answers), the time at which a job was
    asked for, and how many an address may ask for.

    Args:
        quota: jobs that one address may ask for in a minute; None where addresses say nothing, as
            on one's own machine.
    """

    def __init__(self, app: ASGIApp, runner: Runner, quota: int | None = None):
        self.app, self.runner, self.quota = app, runner, quota
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond: Any = self.app
        if scope["type"] == "http":
            respond = await self._answer(scope) or self.app
        await respond(scope, receive, send)

    async def _answer(self, scope: Scope) -> JSONResponse | None:
        """The answer of this middleware; None for what goes on to the app."""
        path = scope["path"]
        health = {"model": self.runner.models.default, "busy": self.runner.jobs.busy}
        if path == "/healthz":
            return JSONResponse(health)
        if path == "/readyz":
            trouble = await asyncio.to_thread(self.runner.trouble)
            return JSONResponse(health | {"trouble": trouble}, 503 if trouble else 200)
        if scope["method"] == "POST" and (
            path.endswith("/queue/join") or "/gradio_api/call/" in path
        ):
            now = time.monotonic()
            scope.setdefault("state", {})["asked"] = now
            if self.quota is not None and self._too_often(address(scope), now):
                said = message(
                    Busy(TOO_OFTEN.format(self.quota), "busy/quota"), Headers(scope=scope)
                )
                return JSONResponse({"detail": said}, 429, {RETRY_AFTER: str(MINUTE)})
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
