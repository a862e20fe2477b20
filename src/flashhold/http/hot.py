"""The thin path: the hot verbs go straight from ASGI to the engine, everything else through FastAPI.

FastAPI's routing, dependencies and contexts cost about as much as the whole decision does (measured: an empty FastAPI
route 6,000-9,000/s, bare ASGI 35,000/s). A hold needs none of them. Both ways carry out the same rows of
`verbs.VERBS` with the same function, so they cannot answer differently.
"""

import time
from typing import Any

from flashhold import telemetry
from flashhold.http.door import Door
from flashhold.http.limits import AT_ONCE
from flashhold.http.problems import Problem
from flashhold.http.requests import ClientGone
from flashhold.http.responses import Answer, problem_answer
from flashhold.http.verbs import COMMIT, HOLD, HOLDS_PREFIX, MOVE, Verb, carry_out

_EXACT = {HOLD.path: HOLD, MOVE.path: MOVE}
_PREFIX = len(HOLDS_PREFIX)
_COMMIT = "/commit"

_log = telemetry.logger(__name__)


def hot_verb(scope: Any) -> tuple[Verb, str] | None:
    """The hot verb that a request asks for, with the hold that its path names; None for all other requests."""
    if scope["method"] != "POST":
        return None
    path: str = scope["path"]
    verb = _EXACT.get(path)
    if verb is not None:
        return verb, ""
    if path.endswith(_COMMIT) and path.startswith(HOLDS_PREFIX):
        hold = path[_PREFIX : -len(_COMMIT)]
        if hold and "/" not in hold:
            return COMMIT, hold
    return None


class Front:
    """The ASGI application that the server calls. It also answers for what nobody foresaw, on both ways."""

    def __init__(self, cold: Any, door: Door) -> None:
        self._cold = cold
        self._door = door
        self._observe = door.metrics.observe

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._cold(scope, receive, send)
            return
        hot = hot_verb(scope)
        if hot is None:
            await self._through_fastapi(scope, receive, send)
            return
        began = time.perf_counter()
        verb, hold = hot
        try:
            answer = await carry_out(self._door, verb, scope["headers"], receive, hold)
        except ClientGone:
            return
        except Exception as fault:  # noqa: BLE001  the last resort: a fault of ours must not look like silence
            answer = self._faulty(fault, scope)
        at_once = scope["extensions"].get(AT_ONCE) if "extensions" in scope else None
        if at_once is None or not at_once(answer):
            await send_answer(send, answer)
        self._observe(verb.name, answer.status, time.perf_counter() - began)

    async def _through_fastapi(self, scope: Any, receive: Any, send: Any) -> None:
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
            await self._cold(scope, receive, noting_status)
        except ClientGone:
            return
        except Exception as fault:  # noqa: BLE001  as above
            answer = self._faulty(fault, scope)
            if status == 0:
                await send_answer(send, answer)
            status = answer.status
        route = scope.get("route")
        self._observe(route.name if route is not None else "none", status, time.perf_counter() - began)

    def _faulty(self, fault: Exception, scope: Any) -> Answer:
        self._door.metrics.failures.inc()
        _log.error("fault", method=scope["method"], path=scope["path"], exc_info=fault)
        return problem_answer(Problem("internal-error"))


async def send_answer(send: Any, answer: Answer) -> None:
    """One answer as ASGI messages."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status, "headers": [length, *answer.headers]})
    await send({"type": "http.response.body", "body": answer.body})
