"""What operators and their tools ask: is it alive, may it be used, what has it done, what can it do."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from flashhold.http import auth
from flashhold.http.door import Door
from flashhold.http.problems import Problem, accident
from flashhold.http.responses import NO_STORE, Answer, json_answer, problem_answer
from flashhold.http.routes import needs, respond


def add(router: APIRouter, door: Door, document: Callable[[], dict[str, Any]], public: bool) -> None:
    """The operations' routes; without `public`, metrics and document need a key with scope `read`."""
    guard = [] if public else [needs(door, auth.MAY_READ_OPERATIONS)]

    @router.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return respond(json_answer(200, {"status": "ok"}))

    @router.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return respond(readiness_answer(door))

    @router.get("/metrics", dependencies=guard, include_in_schema=False)
    async def metrics() -> Response:
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), NO_STORE]
        return respond(Answer(200, door.metrics.exposition(), headers))

    @router.get("/openapi.json", dependencies=guard, include_in_schema=False)
    async def openapi() -> Response:
        return respond(json_answer(200, document()))


def readiness_answer(door: Door) -> Answer:
    """200 when the stores answer and agree and the keys are known, else a 503 problem that says what is missing."""
    verdict = door.stores.verdict
    checks = {"redis": verdict.redis, "ledger": verdict.ledger, "place": verdict.place}
    if not door.keys.loaded:
        checks["api_keys"] = "not read yet"
    elif verdict.ready:
        restored = {"restored": verdict.restored.as_json()} if verdict.restored else {}
        return json_answer(200, {"ready": True, "checks": checks, **restored})
    members = {"ready": False, "checks": checks}
    code = accident(verdict.closed).code if verdict.closed is not None else "store-unavailable"
    wrong = "; ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok")
    return problem_answer(Problem(code, wrong, members=members))
