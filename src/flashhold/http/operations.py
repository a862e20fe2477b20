"""What operators and their tools ask: is it alive, may it be used, what has it done, what can it do."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from flashhold.http import auth
from flashhold.http.door import Door
from flashhold.http.problems import Problem, accident
from flashhold.http.responses import NO_STORE, Answer, json_answer, problem_answer
from flashhold.http.routes import needs, respond
from flashhold.services.readiness import Verdict


def add(router: APIRouter, door: Door, document: Callable[[], dict[str, Any]], public: bool) -> None:
    """The operations' routes; without `public`, metrics and document need a key with scope `read`."""
    guard = [] if public else [needs(door, auth.MAY_READ_OPERATIONS)]

    @router.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return respond(json_answer(200, {"status": "ok"}))

    @router.get("/readyz", include_in_schema=False)
    async def readyz(any_will_do: Annotated[str | None, Query(alias="any")] = None) -> Response:
        return respond(readiness_answer(door, any_will_do is not None))

    @router.get("/metrics", dependencies=guard, include_in_schema=False)
    async def metrics() -> Response:
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), NO_STORE]
        return respond(Answer(200, door.metrics.exposition(), headers))

    @router.get("/openapi.json", dependencies=guard, include_in_schema=False)
    async def openapi() -> Response:
        return respond(json_answer(200, document()))


def readiness_answer(door: Door, any_will_do: bool = False) -> Answer:
    """200 when the stores answer and agree and the keys are known, else a 503 problem that says what is missing.

    `any_will_do`: also where only some of the partitions may decide. That is what a load balancer wants to know: the
    process has work to do, and without it nobody would do it.
    """
    verdict = door.stores.verdict
    checks = {"redis": verdict.redis, "ledger": verdict.ledger, "place": verdict.place}
    members: dict[str, Any] = {"ready": verdict.ready, "checks": checks, **_by_partition(door)}
    if not door.keys.loaded:
        checks["api_keys"] = "not read yet"
        members["ready"] = False
    elif verdict.ready or (any_will_do and any(gate.may_decide for gate in door.stores.gates)):
        return json_answer(200, members)
    members.pop("restored", None)
    code = accident(verdict.closed).code if verdict.closed is not None else "store-unavailable"
    wrong = "; ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok")
    return problem_answer(Problem(code, wrong, members=members))


def _by_partition(door: Door) -> dict[str, Any]:
    """What a deployment of one partition says of its last restore, and one of several of each of them."""
    verdicts = {gate.partition: gate.verdict for gate in door.stores.gates}
    restored = {name: verdict.restored.as_json() for name, verdict in verdicts.items() if verdict.restored}
    if len(verdicts) == 1:
        return dict(zip(("restored",), restored.values(), strict=False))
    said = {name: "ok" if verdict.ready else _wrong(verdict) for name, verdict in verdicts.items()}
    return {"partitions": said, **({"restored": restored} if restored else {})}


def _wrong(verdict: Verdict) -> str:
    return next(said for said in (verdict.place, verdict.redis, verdict.ledger) if said != "ok")
