"""ASGI middleware in front of Gradio: health checks and a rate limit."""

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
from .api_guard import API
from .messages import message
from .queue import Busy
from .runner import Runner

ADDRESSES = 10_000  # kept at most; then those that were quiet for a minute are forgotten
TOO_OFTEN = "{} jobs within a minute came from your address, which is the limit. Wait a minute."


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
