"""The HTTP application of one process, and its life from start to stop."""

import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

import flashhold
from flashhold.domain.errors import FlashHoldError
from flashhold.http import operations, routes
from flashhold.http.auth import Caller, KeyTable, scope_bits
from flashhold.http.availability import Projection
from flashhold.http.door import Door
from flashhold.http.front import Front
from flashhold.http.openapi import complete
from flashhold.http.problems import Problem, accident
from flashhold.http.responses import problem_answer
from flashhold.http.routes import respond
from flashhold.http.verbs import VERBS
from flashhold.settings import Settings
from flashhold.telemetry import HttpMetrics
from flashhold.wiring import Stores

METRICS_PAUSE_MS = 500


def create_app(settings: Settings) -> Front:
    """The ASGI application; opens the stores when the server starts it."""
    stores = Stores(settings)

    async def sellable(skus: Sequence[str]) -> dict[str, dict[str, int]]:
        return await stores.decider().sellable(skus)

    async def load_keys() -> dict[str, Caller]:
        rows = await stores.reader.api_keys()
        return {row.id: Caller(row.id, row.hash, scope_bits(row.scopes)) for row in rows}

    async def show_metrics() -> None:
        # By every process for itself: a scrape reaches only one of them, but adds up what all have shown.
        verdicts = [gate.verdict for gate in stores.gates]
        metrics.waiting.set(stores.waiting)
        metrics.ready.set(all(verdict.ready for verdict in verdicts))
        metrics.missing_entries.set(sum(verdict.restored.missing for verdict in verdicts if verdict.restored))
        metrics.show()

    keys = KeyTable(load_keys)
    projection = Projection(sellable, settings.availability_max_age_ms, settings.reply_timeout_ms)
    metrics = HttpMetrics()
    door = Door(stores, keys, projection, metrics, settings.body_bytes_max)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await stores.start(also=[(keys.refresh, settings.keys_refresh_ms), (show_metrics, METRICS_PAUSE_MS)])
        # What exists now lives as long as the process: the collector need not walk it again. It halved p99.
        gc.collect()
        gc.freeze()
        yield
        await stores.stop()

    return Front(_fastapi(door, settings, lifespan), door)


def _fastapi(door: Door, settings: Settings, lifespan: Any) -> FastAPI:
    app = FastAPI(
        title="FlashHold", version="1", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None,
        redirect_slashes=False, summary=flashhold.__doc__,
    )  # fmt: skip

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            app.openapi_schema = complete(found, list({verb.body.kind: None for verb in VERBS}))
        return app.openapi_schema

    operations.add(app.router, door, document, settings.public_operations)
    routes.add(app.router, door)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(FlashHoldError, _accident)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _fault)
    return app


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return respond(problem_answer(problem))


async def _accident(_: Request, error: Exception) -> Response:
    assert isinstance(error, FlashHoldError)
    return respond(problem_answer(accident(error)))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"field": ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0]), "message": str(one["msg"])}
        for one in error.errors()
    ]
    return respond(problem_answer(Problem("invalid-request", members={"errors": errors})))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = ", ".join(sorted(_methods(request)))
        return respond(problem_answer(Problem("method-not-allowed", headers=[(b"allow", allow.encode())])))
    if error.status_code == 404:
        return respond(problem_answer(Problem("not-found")))
    return respond(problem_answer(Problem("malformed-request")))


def _methods(request: Request) -> set[str]:
    """All methods that the path takes, over all of its routes; Starlette names those of the first one only."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods or set()
    return methods | {"HEAD"} if "GET" in methods else methods


async def _fault(_: Request, __: Exception) -> Response:
    """Only the answer; `Front`, to whom the fault goes on, logs and counts it."""
    return respond(problem_answer(Problem("internal-error")))
