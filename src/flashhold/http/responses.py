"""What the engine answers → the contract's JSON."""

from typing import Annotated, Any, NamedTuple

import msgspec

from flashhold.domain.entries import Entry
from flashhold.domain.instants import rfc3339, rfc3339_or_none
from flashhold.domain.model import DEFAULT_POOL, Hold, HoldLine, HoldState, Policy, PoolPolicy, Stock
from flashhold.http.problems import MEDIA_TYPE, Problem

Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
PROBLEM_TYPE = (b"content-type", MEDIA_TYPE)
FRESH = (b"idempotency-replayed", b"false")
REPLAYED = (b"idempotency-replayed", b"true")
NO_STORE = (b"cache-control", b"no-store")

_STATES = tuple(state.label for state in HoldState)
_NO_METADATA = msgspec.Raw(b"{}")
_encode = msgspec.json.Encoder().encode


At = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""An instant: RFC 3339, UTC, milliseconds."""


class Answer(NamedTuple):
    """One HTTP response, ready to be sent but for its length."""

    status: int
    body: bytes
    headers: Headers


class HoldLineAnswer(msgspec.Struct):
    """A line of a hold."""

    sku: str
    pool: str
    quantity: int
    committed: int
    released: int


class PartialLineAnswer(HoldLineAnswer):
    """A line of a hold that was allowed to be partial."""

    requested: int


class HoldAnswer(msgspec.Struct):
    """A hold; members that do not apply are null."""

    id: str
    state: str
    lines: list[HoldLineAnswer]
    buyer: str | None
    created_at: At
    expires_at: At
    ended_at: At | None
    reference: str | None
    reason: str | None
    reacquired: bool
    metadata: msgspec.Raw
    partition: str
    epoch: int
    seq: int


class PostingAnswer(msgspec.Struct):
    """So many units came into (or, negative, left) one bucket of one pool."""

    sku: str
    pool: str
    bucket: str
    quantity: int


class EntryAnswer(msgspec.Struct):
    """A ledger entry; the postings sum to zero for each SKU."""

    partition: str
    epoch: int
    seq: int
    at: At
    kind: str
    hold: str | None
    buyer: str | None
    reference: str | None
    reason: str | None
    idempotency_key: str | None
    expires_at: At | None
    shortfall: int | None
    postings: list[PostingAnswer]
    chain: str


class PolicyFields(msgspec.Struct):
    """The rules of a SKU; null: the deployment's default applies. The top level is for the pool `default`."""

    sku_class: str | None = msgspec.field(name="class")
    safety_stock: int
    oversell_allowance: int
    hold_ttl_seconds: int | None
    hold_ttl_seconds_max: int | None
    max_per_buyer: int | None
    opens_at: At | None
    closes_at: At | None
    partition_key: str | None
    durability: str | None
    pools: dict[str, "PoolPolicyAnswer"]


class PoolPolicyAnswer(msgspec.Struct):
    """What a policy sets for one of the other pools."""

    safety_stock: int
    oversell_allowance: int


class PolicyAnswer(PolicyFields):
    """A policy and its place in the ledger."""

    sku: str
    partition: str
    epoch: int
    seq: int


class StockAnswer(msgspec.Struct):
    """One pool of one SKU at one instant."""

    sku: str
    pool: str
    on_hand: int
    held: int
    committed: int
    damaged: int
    in_transit: int
    safety_stock: int
    oversell_allowance: int
    sellable: int
    partition: str
    epoch: int
    seq: int
    as_of: At
    policy: PolicyFields


def hold_body(hold: Hold) -> bytes:
    """A hold as JSON; the lines of one that was allowed to be partial say what was `requested`."""
    lines: list[HoldLineAnswer]
    if any([line.requested is not None for line in hold.lines]):
        lines = [_partial_line(line) for line in hold.lines]
    else:
        lines = [
            HoldLineAnswer(sku, pool, quantity, committed, released)
            for sku, pool, quantity, committed, released, _ in hold.lines
        ]
    return _encode(
        HoldAnswer(
            hold.id,
            _STATES[hold.state],
            lines,
            hold.buyer,
            rfc3339(hold.created_at_ms),
            rfc3339(hold.expires_at_ms),
            rfc3339_or_none(hold.ended_at_ms),
            hold.reference,
            hold.reason,
            hold.reacquired,
            _NO_METADATA if hold.metadata is None else msgspec.Raw(hold.metadata.encode()),
            hold.partition,
            hold.epoch,
            hold.seq,
        )
    )


def _partial_line(line: HoldLine) -> PartialLineAnswer:
    requested = line.quantity if line.requested is None else line.requested
    return PartialLineAnswer(line.sku, line.pool, line.quantity, line.committed, line.released, requested)


def entry_body(entry: Entry) -> bytes:
    """A ledger entry as JSON."""
    return _encode(
        EntryAnswer(
            entry.partition,
            entry.epoch,
            entry.seq,
            rfc3339(entry.at_ms),
            entry.kind,
            entry.hold,
            entry.buyer,
            entry.reference,
            entry.reason,
            entry.idempotency_key,
            rfc3339_or_none(entry.expires_at_ms),
            entry.shortfall or None,
            [PostingAnswer(**posting) for change in entry.changes for posting in change.postings()],
            entry.chain,
        )
    )


def _policy_fields(policy: Policy) -> tuple[Any, ...]:
    default = policy.pools.get(DEFAULT_POOL) or PoolPolicy()
    return (
        policy.sku_class,
        *default,
        _seconds(policy.hold_ttl_ms),
        _seconds(policy.hold_ttl_max_ms),
        policy.max_per_buyer,
        rfc3339_or_none(policy.opens_at_ms),
        rfc3339_or_none(policy.closes_at_ms),
        policy.partition_key,
        policy.durability,
        {name: PoolPolicyAnswer(*pool) for name, pool in sorted(policy.pools.items()) if name != DEFAULT_POOL},
    )


def policy_body(policy: Policy) -> bytes:
    """A policy as JSON, with its place in the ledger."""
    fields = (*_policy_fields(policy), policy.sku, policy.partition, policy.epoch, policy.seq)
    return _encode(PolicyAnswer(*fields))


def stock_body(stock: Stock) -> bytes:
    """A strong read as JSON."""
    return _encode(
        StockAnswer(
            stock.sku,
            stock.pool,
            stock.on_hand,
            stock.held,
            stock.committed,
            stock.damaged,
            stock.in_transit,
            stock.safety_stock,
            stock.oversell_allowance,
            stock.sellable,
            stock.partition,
            stock.epoch,
            stock.seq,
            rfc3339(stock.as_of_ms),
            PolicyFields(*_policy_fields(stock.policy)),
        )
    )


def _seconds(interval_ms: int | None) -> int | None:
    return None if interval_ms is None else interval_ms // 1000


def json_answer(status: int, value: Any, headers: Headers | None = None) -> Answer:
    """Any JSON-able value as an answer that no cache keeps."""
    return Answer(status, _encode(value), [JSON_TYPE, *(headers or [NO_STORE])])


def problem_answer(problem: Problem) -> Answer:
    """A problem as an answer; one that a verb decided says whether it is a repetition."""
    headers: Headers = [PROBLEM_TYPE, NO_STORE, *problem.headers]
    if problem.replayed is not None:
        headers.append(REPLAYED if problem.replayed else FRESH)
    return Answer(problem.status, problem.body(), headers)
