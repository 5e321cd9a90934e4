"""At the server's door: when a job was asked for, how often one address may ask, and whether the server is well."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .runtime import Studio

MINUTE = 60.0
ADDRESSES = 10_000  # kept at most; then those that were quiet for a minute are forgotten
TOO_OFTEN = "{count} jobs within a minute came from your address, which is the limit. Wait a minute. [busy/quota]"


class Doorman:
    """ASGI middleware: `/healthz` (the server lives), `/readyz` (the model is loaded), and a stamp and a quota for jobs.

    Args:
        quota: jobs that one address may ask for in a minute; None where addresses say nothing, as on one's own machine.
    """

    def __init__(self, app: ASGIApp, studio: Studio, quota: int | None = None):
        self.app, self.studio, self.quota = app, studio, quota
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond: Any = self.app
        if scope["type"] == "http":
            respond = self._answer(scope) or self.app
        await respond(scope, receive, send)

    def _answer(self, scope: Scope) -> JSONResponse | None:
        """What is answered here; None for all else."""
        path = scope["path"]
        if path in ("/healthz", "/readyz"):
            health = self.health()
            return JSONResponse(health, 200 if path == "/healthz" or health["ready"] else 503)
        if scope["method"] == "POST" and (path.endswith("/queue/join") or "/gradio_api/call/" in path):
            now = time.monotonic()
            scope.setdefault("state", {})["asked"] = now
            if self.quota is not None and self._too_often(address(scope), now):
                return JSONResponse({"detail": TOO_OFTEN.format(count=self.quota)}, 429, {"Retry-After": f"{MINUTE:.0f}"})
        return None

    def health(self) -> dict[str, Any]:
        gate, models = self.studio.gate, self.studio.models
        return {"ready": models.ready and not gate.draining, "model": models.default, "busy": gate.busy}

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
    """Who asks: the first address of `X-Forwarded-For`, which a public host's proxy writes, else the peer's."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1").split(",")[0].strip()
    return forwarded or (scope["client"] or ("",))[0]
