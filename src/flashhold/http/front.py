"""What stands before FastAPI: counts every answer, and answers for what nobody foresaw."""

import asyncio
import time
from typing import Any

from flashhold import telemetry
from flashhold.http.door import Door
from flashhold.http.problems import Problem
from flashhold.http.requests import ClientGone
from flashhold.http.responses import Answer, problem_answer
from flashhold.http.turnstile import Turnstile

START_SECONDS = 2.0
"""How long a new process may look for its stores before it takes connections all the same, and says what is missing.
Until then they wait for it or go to its neighbours: one that takes another's place must not answer 503 first."""
_LOOK_SECONDS = 0.02

_log = telemetry.logger(__name__)


class Front:
    """The ASGI application that the server calls."""

    def __init__(self, inner: Any, door: Door) -> None:
        self._inner = inner
        self.door = door
        self.turnstile: Turnstile | None = None
        """Before the thin path; made with the first connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, self._once_ready(send))
            return
        if scope["method"] == "HEAD":
            # What may be read may be asked for its headers; the server leaves the body out.
            scope = {**scope, "method": "GET"}
        began = time.perf_counter()
        status = 0

        async def noting_status(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._inner(scope, receive, noting_status)
        except ClientGone:
            return
        except Exception as fault:  # noqa: BLE001  the last resort: a fault of ours must not look like silence
            answer = faulty(self.door, fault, scope["path"])
            if status == 0:
                await _send(send, answer)
            status = answer.status
        route = scope.get("route")
        self.door.metrics.observe(route.name if route is not None else "none", status, time.perf_counter() - began)

    def _once_ready(self, send: Any) -> Any:
        """`send` that tells the server of the start when the stores may be used."""

        async def sending(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._ready(asyncio.get_running_loop().time() + START_SECONDS)
            await send(message)

        return sending

    async def _ready(self, until: float) -> None:
        loop, door = asyncio.get_running_loop(), self.door
        while not (door.stores.verdict.ready and door.keys.loaded) and loop.time() < until:  # noqa: ASYNC110  # once
            await asyncio.sleep(_LOOK_SECONDS)


def faulty(door: Door, fault: Exception, path: str) -> Answer:
    """Count and log a fault of the program; its 500 says nothing of the inside."""
    door.metrics.failures.inc()
    _log.error("fault", path=path, exc_info=fault)
    return problem_answer(Problem("internal-error"))


async def _send(send: Any, answer: Answer) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status, "headers": [length, *answer.headers]})
    await send({"type": "http.response.body", "body": answer.body})
