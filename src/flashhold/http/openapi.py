"""One OpenAPI document for both ways through the door, made from what the code checks and answers with."""

from typing import TYPE_CHECKING, Any

import msgspec

from flashhold.domain import limits
from flashhold.http import responses
from flashhold.http.problems import KINDS, TYPE_PREFIX
from flashhold.http.schemas import ECMA_PATTERN

if TYPE_CHECKING:
    from flashhold.http.verbs import Verb

_FASTAPIS_OWN = ("Successful Response", "Validation Error")
_REF = "#/components/schemas/"

_BEFORE_ALL = ("unauthenticated", "forbidden")
_AFTER_ALL = ("overloaded", "store-unavailable", "not-durable", "recovering")
_BODY = ("malformed-json", "idempotency-key-invalid", "body-too-large", "unsupported-media-type", "invalid-request")

_SUMMARIES = {
    "hold": "Claim units for a time: all lines or none",
    "commit": "Sell what is held",
    "release": "Give back what is held",
    "extend": "Move a hold's deadline, never back",
    "amend": "Change what is held, all or nothing",
    "move": "Record a movement of stock",
    "put_policy": "Replace a SKU's policy",
    "patch_policy": "Merge into a SKU's policy",
}

TEXT_SCHEMA: dict[str, Any] = {
    "type": "string", "minLength": 1, "maxLength": limits.TEXT_LENGTH_MAX, "pattern": ECMA_PATTERN,
}  # fmt: skip
_SKU = {"name": "sku", "in": "path", "required": True, "description": "Percent-encoded; a slash is part of it.",
        "schema": TEXT_SCHEMA}  # fmt: skip
_HOLD = {"name": "hold", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


class HoldPageAnswer(msgspec.Struct):
    """Holds as the ledger knows them at `as_of`."""

    items: list[responses.HoldAnswer]
    next_cursor: str | None
    as_of: responses.At


class LedgerPageAnswer(msgspec.Struct):
    """Entries in ledger order, as far as the ledger is at `as_of`."""

    items: list[responses.EntryAnswer]
    next_cursor: str | None
    as_of: responses.At


class AvailableAnswer(msgspec.Struct):
    """What one pool can still sell."""

    sku: str
    pool: str
    sellable: int


class AvailabilityAnswer(msgspec.Struct):
    """What product pages show; may lag by `max_age_ms`."""

    as_of: responses.At
    max_age_ms: int
    items: list[AvailableAnswer]
    unknown: list[str]


_ANSWERS = (
    responses.HoldAnswer,
    responses.EntryAnswer,
    responses.PolicyAnswer,
    responses.StockAnswer,
    HoldPageAnswer,
    LedgerPageAnswer,
    AvailabilityAnswer,
)
_ANSWER_OF = {"move": "EntryAnswer", "put_policy": "PolicyAnswer", "patch_policy": "PolicyAnswer"}


def describes(verb: "Verb") -> dict[str, Any]:
    """What FastAPI shall say about the route of a verb."""
    codes = [*_BEFORE_ALL, *_BODY, *verb.refusals, "idempotency-key-reused", *_AFTER_ALL]
    if verb.key_required:
        codes.append("idempotency-key-missing")
    answer = _ANSWER_OF.get(verb.name, "HoldAnswer")
    extra = {
        "summary": _SUMMARIES[verb.name],
        "parameters": [_idempotency_key(verb.key_required), *([_SKU] if "{sku}" in verb.path else [])]
        + ([_HOLD] if "{hold}" in verb.path else []),
        "requestBody": {
            "required": verb.key_required,
            "content": {"application/json": {"schema": {"$ref": _REF + verb.body.kind.__name__}}},
        },
        "responses": {str(status): _json(answer, replays=True) for status in verb.statuses} | _problems(codes),
    }
    return {"openapi_extra": extra, "operation_id": verb.name, "response_model": None}


def reads(name: str, summary: str, answer: str, refusals: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same for a route that only reads."""
    described = {"200": _json(answer)} | _problems((*_BEFORE_ALL, "invalid-request", *refusals, *_AFTER_ALL))
    if name == "availability":
        described["304"] = {"description": "What was seen last is still true."}
    return {
        "operation_id": name,
        "name": name,
        "summary": summary,
        "response_model": None,
        "openapi_extra": {"responses": described, **({"parameters": [_SKU]} if name == "read_stock" else {})},
    }


def complete(document: dict[str, Any], bodies: list[type[msgspec.Struct]]) -> dict[str, Any]:
    """FastAPI's document with the schemas of bodies, answers and problems, and the security scheme, put in."""
    _, schemas = msgspec.json.schema_components([*bodies, *_ANSWERS], ref_template=_REF + "{name}")
    document["components"] = {
        "schemas": {**schemas, "Problem": _problem_schema()},
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "Scopes: holds, stock, read, admin."},
        },
    }
    document["security"] = [{"key": []}]
    for path in document["paths"].values():
        for operation in path.values():
            _tidy(operation)
    return document


def _tidy(operation: dict[str, Any]) -> None:
    """FastAPI's own 422 and its second description of a path's parameters give way to ours."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for parameter in operation.get("parameters", []):
        seen[parameter["in"], parameter["name"]] = parameter
    operation["parameters"] = list(seen.values())
    operation["responses"] = {
        status: what for status, what in operation["responses"].items() if what["description"] not in _FASTAPIS_OWN
    }


def _idempotency_key(required: bool) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "One name space for the whole deployment; the answer decided for a key sticks to it.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    }


def _json(answer: str, replays: bool = False) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": answer.removesuffix("Answer"),
        "content": {"application/json": {"schema": {"$ref": _REF + answer}}},
    }
    if replays:
        described["headers"] = {
            "Idempotency-Replayed": {
                "description": "Whether the answer was decided at an earlier try.",
                "schema": {"type": "string", "enum": ["true", "false"]},
            }
        }
    return described


def _problems(codes: tuple[str, ...] | list[str]) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for code in codes:
        by_status.setdefault(str(KINDS[code].status), []).append(code)
    return {
        status: {
            "description": ", ".join(of_status),
            "content": {"application/problem+json": {"schema": {"$ref": _REF + "Problem"}}},
        }
        for status, of_status in sorted(by_status.items())
    }


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457; some codes have members of their own.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "description": f"{TYPE_PREFIX}<code>"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(KINDS)},
        },
        "additionalProperties": True,
    }
