"""Request bodies as the contract has them, and the commands that they mean.

Strict throughout: an integer is a JSON integer, an unknown member is refused, null means not given. What the types
cannot say (a sign that depends on `type`, a pool that must differ) is checked in `command`.
"""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from flashhold.domain import commands, limits
from flashhold.domain.idempotency import is_cart
from flashhold.domain.instants import milliseconds
from flashhold.domain.model import DEFAULT_POOL, Line
from flashhold.http.problems import invalid

METADATA_DEPTH_MAX = 32
"""Deeper objects are nobody's order data, but would reach every reader's recursion limit."""

ECMA_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\ud800-\udfff]+$"
"""`limits.TEXT_PATTERN` in the regular expressions that JSON Schema has."""

Text = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.TEXT_LENGTH_MAX,
        pattern=limits.TEXT_PATTERN,
        extra_json_schema={"pattern": ECMA_PATTERN},
    ),
]
Quantity = Annotated[int, Meta(ge=limits.QUANTITY_MIN, le=limits.QUANTITY_MAX)]
Units = Annotated[int, Meta(ge=0, le=limits.QUANTITY_MAX)]
SignedQuantity = Annotated[int, Meta(ge=-limits.QUANTITY_MAX, le=limits.QUANTITY_MAX)]
Seconds = Annotated[int, Meta(ge=1, le=limits.QUANTITY_MAX)]
Instant = Annotated[datetime, Meta(tz=True)]


class LineBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """So many units of a SKU."""

    sku: Text
    quantity: Quantity
    pool: Text | None = None


Lines = Annotated[list[LineBody], Meta(min_length=1, max_length=limits.LINES_MAX)]


class HoldBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/holds`"""

    lines: Lines
    buyer: Text | None = None
    ttl_seconds: Seconds | None = None
    allow_partial: bool | None = None
    metadata: dict[str, Any] | None = None


class CommitBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/holds/{id}/commit`"""

    reference: Text | None = None
    lines: Lines | None = None
    if_expired: Literal["reject", "reacquire"] | None = None


class ReleaseBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/holds/{id}/release`"""

    reason: Text | None = None


class ExtendBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/holds/{id}/extend`"""

    ttl_seconds: Seconds


class AmendBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/holds/{id}/amend`"""

    lines: Lines


MovementType = Literal["receipt", "shipment", "return", "damage", "adjustment", "transfer", "cancel"]


class MovementBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/movements`. `quantity` is negative only for an adjustment."""

    type: MovementType
    sku: Text
    quantity: SignedQuantity
    pool: Text | None = None
    reason: Text | None = None
    reference: Text | None = None
    hold: Text | None = None
    to_pool: Text | None = None


class PoolPolicyBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a policy sets for one pool."""

    safety_stock: Units | None = None
    oversell_allowance: Units | None = None


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`PUT` and `PATCH /v1/skus/{sku}`"""

    sku_class: Text | None = msgspec.field(name="class", default=None)
    safety_stock: Units | None = None
    oversell_allowance: Units | None = None
    hold_ttl_seconds: Seconds | None = None
    hold_ttl_seconds_max: Seconds | None = None
    max_per_buyer: Quantity | None = None
    opens_at: Instant | None = None
    closes_at: Instant | None = None
    partition_key: Text | None = None
    durability: Literal["memory", "disk", "replica", "ledger"] | None = None
    pools: Annotated[dict[Text, PoolPolicyBody | None], Meta(max_length=100)] | None = None


class Request(NamedTuple):
    """What a command is made from, beside the body: the key, and the hold or SKU that the path names."""

    key: str | None
    subject: str


def hold_command(body: HoldBody, request: Request) -> commands.Hold:
    """The command of `POST /v1/holds`."""
    return commands.Hold(
        request.key or "",
        tuple([Line(line.sku, line.quantity, line.pool or DEFAULT_POOL) for line in body.lines]),
        body.buyer,
        None if body.ttl_seconds is None else body.ttl_seconds * 1000,
        body.allow_partial is True,
        canonical(body.metadata) if body.metadata else None,
    )


def commit_command(body: CommitBody, request: Request) -> commands.Commit:
    """The command of a commit."""
    return commands.Commit(
        request.subject,
        body.reference,
        None if body.lines is None else lines_of(body.lines),
        body.if_expired == "reacquire",
        request.key,
    )


def release_command(body: ReleaseBody, request: Request) -> commands.Release:
    """The command of a release."""
    return commands.Release(request.subject, body.reason, request.key)


def extend_command(body: ExtendBody, request: Request) -> commands.Extend:
    """The command of an extension."""
    return commands.Extend(request.subject, body.ttl_seconds * 1000, request.key)


def amend_command(body: AmendBody, request: Request) -> commands.Amend:
    """The command of an amendment."""
    return commands.Amend(request.subject, lines_of(body.lines), request.key)


def movement_command(body: MovementBody, request: Request) -> commands.Move:
    """The command of a movement. Raises `Problem` for what `type` rules out."""
    pool = body.pool or DEFAULT_POOL
    if body.type == "adjustment":
        if body.quantity == 0:
            raise invalid("quantity", "an adjustment by 0 is none")
        if body.reason is None:
            raise invalid("reason", "required for an adjustment")
    elif body.quantity < limits.QUANTITY_MIN:
        raise invalid("quantity", f"must be at least {limits.QUANTITY_MIN}; only an adjustment is signed")
    if body.type == "transfer":
        if body.to_pool is None:
            raise invalid("to_pool", "required for a transfer")
        if body.to_pool == pool:
            raise invalid("to_pool", "must differ from the pool that the units leave")
    elif body.to_pool is not None:
        raise invalid("to_pool", "only a transfer has one")
    return commands.Move(
        request.key or "",
        body.type,
        body.sku,
        body.quantity,
        pool,
        body.reason,
        body.reference,
        body.hold,
        body.to_pool,
        ask_ledger=body.hold is not None and not is_cart(body.hold) and body.type in ("cancel", "return"),
    )


def put_policy_command(body: PolicyBody, request: Request) -> commands.SetPolicy:
    """The command that replaces a policy."""
    return commands.SetPolicy(request.subject, policy_fields(body), True, request.key)


def patch_policy_command(body: PolicyBody, request: Request) -> commands.SetPolicy:
    """The command that merges into a policy."""
    return commands.SetPolicy(request.subject, policy_fields(body), False, request.key)


def policy_fields(body: PolicyBody) -> dict[str, Any]:
    """The fields given, in the engine's names and units. Raises `Problem` for fields that contradict each other."""
    seconds, seconds_max = body.hold_ttl_seconds, body.hold_ttl_seconds_max
    if seconds is not None and seconds_max is not None and seconds > seconds_max:
        raise invalid("hold_ttl_seconds", "must not be above hold_ttl_seconds_max")
    fields: dict[str, Any] = {
        "class": body.sku_class,
        "hold_ttl_ms": None if seconds is None else seconds * 1000,
        "hold_ttl_max_ms": None if seconds_max is None else seconds_max * 1000,
        "max_per_buyer": body.max_per_buyer,
        "opens_at_ms": _instant("opens_at", body.opens_at),
        "closes_at_ms": _instant("closes_at", body.closes_at),
        "partition_key": body.partition_key,
        "durability": body.durability,
        "pools": _pools(body) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _pools(body: PolicyBody) -> dict[str, dict[str, int]]:
    pools = {
        name: {
            field: units
            for field, units in (("safety_stock", given.safety_stock), ("oversell_allowance", given.oversell_allowance))
            if units is not None
        }
        for name, given in (body.pools or {}).items()
        if given is not None
    }
    for field, units in (("safety_stock", body.safety_stock), ("oversell_allowance", body.oversell_allowance)):
        if units is None:
            continue
        if pools.setdefault(DEFAULT_POOL, {}).setdefault(field, units) != units:
            raise invalid(f"pools.{DEFAULT_POOL}.{field}", f"contradicts {field}, which is that of the same pool")
    return pools


def _instant(field: str, instant: datetime | None) -> int | None:
    if instant is None:
        return None
    at_ms = milliseconds(instant)
    if at_ms < 0:
        raise invalid(field, "must not be before 1970")
    return at_ms


def lines_of(lines: list[LineBody]) -> tuple[Line, ...]:
    """The lines with their default filled in."""
    return tuple([Line(line.sku, line.quantity, line.pool or DEFAULT_POOL) for line in lines])


def canonical(metadata: dict[str, Any]) -> str:
    """The same object as one text, whatever its order and white space were. Raises `Problem` when it is too deep."""
    text = msgspec.json.encode(metadata, order="sorted")
    if text.count(b"{") + text.count(b"[") > METADATA_DEPTH_MAX and _depth(text) > METADATA_DEPTH_MAX:
        raise invalid("metadata", f"must not be nested deeper than {METADATA_DEPTH_MAX} levels")
    return text.decode()


def _depth(text: bytes) -> int:
    """How many objects and lists of a JSON text stand inside one another."""
    level: list[Any] = [json.loads(text)]
    depth = 0
    while level:
        inside = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]
        level = [item for item in inside if isinstance(item, dict | list)]
        depth += 1
    return depth
