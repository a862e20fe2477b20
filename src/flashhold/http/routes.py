"""FastAPI's side of the door: every route there is, the hot ones included, so that one document describes them all."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from starlette.convertors import StringConvertor, register_url_convertor

from flashhold.domain.entries import KINDS
from flashhold.domain.limits import is_text
from flashhold.domain.model import DEFAULT_POOL
from flashhold.domain.outcomes import Refused
from flashhold.domain.reasons import Reason
from flashhold.http import auth, responses
from flashhold.http.availability import projection_body
from flashhold.http.door import Door
from flashhold.http.openapi import TEXT_SCHEMA, describes, reads
from flashhold.http.problems import invalid, refusal
from flashhold.http.requests import sku_of
from flashhold.http.responses import JSON_TYPE, NO_STORE, Answer, json_answer
from flashhold.http.verbs import SKUS_PREFIX, VERBS, Verb, carry_out

SKUS_ASKED_MAX = 100
PAGE_MAX = 1000
PAGE_DEFAULT = 100

_SKUS_PREFIX = SKUS_PREFIX.encode()


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("must be 1 to 128 characters without control characters")
    return value


def _kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}")
    return value


def _or_none(value: str | None) -> str | None:
    """`?buyer=` says as much as no buyer: nothing has an empty name."""
    return value or None


Text = Annotated[str, AfterValidator(_text), WithJsonSchema(TEXT_SCHEMA)]
Asked = Annotated[Text | None, BeforeValidator(_or_none)]
Kind = Annotated[Annotated[str, AfterValidator(_kind)] | None, BeforeValidator(_or_none)]
State = Annotated[Literal["held", "committed", "released", "expired"] | None, BeforeValidator(_or_none)]
Cursor = Annotated[str | None, BeforeValidator(_or_none), Query(description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]


class _AnySku(StringConvertor):
    """All that follows, slashes and line breaks too: what a SKU may be is said in one place, and by a 422."""

    regex = "(?s:.*)"


def respond(answer: Answer) -> Response:
    """An answer as FastAPI's response, headers as they are."""
    response = Response(answer.body, answer.status)
    length = [] if answer.status == 304 else [(b"content-length", b"%d" % len(answer.body))]
    response.raw_headers = [*length, *answer.headers]
    return response


def needs(door: Door, scopes: int) -> Any:
    """A dependency that lets a request pass whose key has one of the scopes, and whose query is text."""

    async def check(request: Request) -> None:
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        await door.keys.check(given[0] if len(given) == 1 else None, scopes)
        try:
            unquote_to_bytes(request.scope["query_string"]).decode()
        except UnicodeDecodeError:
            raise invalid("query", "must be valid UTF-8, percent-encoded") from None

    return Depends(check)


def add(router: APIRouter, door: Door) -> None:
    """All routes of `/v1`."""
    register_url_convertor("sku", _AnySku())
    for verb in VERBS:
        path = verb.path.replace("{sku}", "{sku:sku}")
        router.add_api_route(path, _endpoint(door, verb), methods=[verb.method], name=verb.name, **describes(verb))
    _add_reads(router, door)
    _add_ledger_reads(router, door)


def _endpoint(door: Door, verb: Verb) -> Callable[[Request], Awaitable[Response]]:
    def named(request: Request) -> Callable[[], str] | str:
        if "{sku}" in verb.path:
            return lambda: sku_of(request.scope["raw_path"], _SKUS_PREFIX)
        hold: str = request.path_params.get("hold", "")
        return hold

    async def endpoint(request: Request) -> Response:
        return respond(await carry_out(door, verb, request.scope["headers"], request.receive, named(request)))

    return endpoint


def _add_reads(router: APIRouter, door: Door) -> None:
    @router.get("/v1/holds/{hold}", **reads("read_hold", "A hold as it stands now", "HoldAnswer", ("unknown-hold",)))
    async def read_hold(hold: str, _: Annotated[None, needs(door, auth.MAY_READ_HOLDS)]) -> Response:
        outcome = await door.decider().read_hold(hold)
        if not isinstance(outcome, Refused):
            return respond(Answer(200, responses.hold_body(outcome.value), [JSON_TYPE, NO_STORE]))
        remembered = await door.stores.reader.hold(hold) if outcome.reason == Reason.UNKNOWN_HOLD else None
        if remembered is None:
            raise refusal(outcome)
        return respond(json_answer(200, remembered))

    @router.get("/v1/skus/{sku:sku}", **reads("read_stock", "One pool, read now", "StockAnswer", ("unknown-sku",)))
    async def read_stock(
        request: Request, _: Annotated[None, needs(door, auth.MAY_READ_STOCK)], pool: Asked = None
    ) -> Response:
        sku = sku_of(request.scope["raw_path"], _SKUS_PREFIX)
        outcome = await door.decider().read_stock(sku, pool or DEFAULT_POOL)
        if isinstance(outcome, Refused):
            raise refusal(outcome)
        return respond(Answer(200, responses.stock_body(outcome.value), [JSON_TYPE, NO_STORE]))

    @router.get("/v1/availability", **reads("availability", "What product pages show", "AvailabilityAnswer"))
    async def availability(
        request: Request,
        _: Annotated[None, needs(door, auth.MAY_READ_AVAILABILITY)],
        sku: Annotated[list[Text], Query(min_length=1, max_length=SKUS_ASKED_MAX)],
    ) -> Response:
        max_age_ms = door.projection.max_age_ms
        body, etag = projection_body(await door.projection.look(list(dict.fromkeys(sku))), max_age_ms)
        caching = b"private, max-age=%d, must-revalidate" % (max_age_ms // 1000)
        headers = [(b"etag", etag), (b"cache-control", caching)]
        if _matches(request.headers.get("if-none-match"), etag.decode()):
            return respond(Answer(304, b"", headers))
        return respond(Answer(200, body, [JSON_TYPE, *headers]))


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Weak comparison, as RFC 9110 wants for If-None-Match."""
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def _add_ledger_reads(router: APIRouter, door: Door) -> None:
    @router.get("/v1/holds", **reads("list_holds", "Holds as the ledger knows them", "HoldPageAnswer"))
    async def list_holds(
        _: Annotated[None, needs(door, auth.MAY_READ_HOLDS)],
        buyer: Asked = None,
        sku: Asked = None,
        state: State = None,
        cursor: Cursor = None,
        limit: Limit = PAGE_DEFAULT,
    ) -> Response:
        reader = door.stores.reader
        return respond(json_answer(200, await reader.holds_page(buyer, sku, state, cursor, limit)))

    @router.get("/v1/ledger", **reads("list_entries", "Entries in ledger order", "LedgerPageAnswer"))
    async def list_entries(
        _: Annotated[None, needs(door, auth.MAY_READ_STOCK)],
        sku: Asked = None,
        hold: Asked = None,
        kind: Kind = None,
        partition: Asked = None,
        cursor: Cursor = None,
        limit: Limit = PAGE_DEFAULT,
    ) -> Response:
        reader = door.stores.reader
        return respond(json_answer(200, await reader.ledger_page(sku, hold, kind, partition, cursor, limit)))
