"""Ledger entries: a verb with postings that sum to zero for each SKU (DESIGN: double entry)."""

from typing import Any, NamedTuple

BUCKETS = ("outside", "available", "held", "committed", "damaged", "in_transit")
"""Where units can be, in the order of a `Movement`'s quantities."""

MOVEMENT_KINDS = ("receipt", "shipment", "return", "damage", "adjustment", "transfer", "cancel")
KINDS = ("hold", "commit", "release", "expire", "extend", "amend", *MOVEMENT_KINDS, "policy", "restore")


class PoolChange(NamedTuple):
    """The postings of one step in one pool, a column a bucket; they sum to zero over a step's pools."""

    sku: str
    pool: str
    outside: int
    available: int
    held: int
    committed: int
    damaged: int
    in_transit: int

    def postings(self) -> list[dict[str, Any]]:
        """The same as the contract's list of signed postings, empty buckets left out."""
        return [
            {"sku": self.sku, "pool": self.pool, "bucket": bucket, "quantity": quantity}
            for bucket, quantity in zip(BUCKETS, self[2:], strict=True)
            if quantity
        ]


class Entry(NamedTuple):
    """One line of the ledger: what one command changed. Times are ms since 1970 UTC."""

    partition: str
    epoch: int
    seq: int
    at_ms: int
    kind: str
    hold: str | None
    idempotency_key: str | None
    fingerprint: str | None
    buyer: str | None
    expires_at_ms: int | None
    reference: str | None
    reason: str | None
    shortfall: int | None
    changes: tuple[PoolChange, ...]
    details: dict[str, Any] | None
    """What only this kind has: a hold's `metadata` and `requested`, a policy's fields."""
    chain: str


class Batch(NamedTuple):
    """One journal record: the entries of one atomic batch, and the hash that ties it to the one before."""

    partition: str
    stream_id: str
    epoch: int
    first_seq: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs of a batch
    at_ms: int
    chain: str
    payload: bytes
