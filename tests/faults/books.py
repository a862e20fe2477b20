"""One partition's ledger, added up entry by entry: the checker's own idea of pools, holds, policies and shares.

Nothing here is the product's: a fold that was wrong in the same way as the product's would agree with it. Nothing here
judges either; an impossible entry is taken in as far as it makes sense, and the rules have said so before.
"""

import heapq
import json
from collections.abc import Iterable
from typing import Any

from flashhold.domain.entries import Entry

OUTSIDE, AVAILABLE, HELD, COMMITTED, DAMAGED, IN_TRANSIT = range(6)
OF_A_HOLD = frozenset({"hold", "commit", "release", "expire", "extend", "amend"})
GIVING_BACK = frozenset({"cancel", "return"})

Pool = tuple[str, str]
Place = tuple[int, int]


class PoolBook:
    """A pool's units by bucket, what its policy sets aside, and its holds by deadline."""

    __slots__ = ("buckets", "due", "overdue", "oversell_allowance", "safety_stock")

    def __init__(self) -> None:
        self.buckets = [0, 0, 0, 0, 0, 0]
        self.safety_stock = 0
        self.oversell_allowance = 0
        self.due: list[tuple[int, str]] = []
        self.overdue: set[str] = set()

    @property
    def sellable(self) -> int:
        return self.buckets[AVAILABLE] - self.safety_stock + self.oversell_allowance

    @property
    def on_hand(self) -> int:
        return self.buckets[AVAILABLE] + self.buckets[HELD] + self.buckets[COMMITTED]


class Claim:
    """A hold as the entries so far leave it. A line: [sku, pool, quantity, committed, released, requested | None]."""

    __slots__ = (
        "buyer", "created_ms", "ended_ms", "expires_ms", "id", "lines", "metadata", "place", "reacquired", "reason",
        "reference", "sold", "state", "units",
    )  # fmt: skip

    def __init__(self, entry: Entry) -> None:
        self.id = entry.hold or ""
        self.state = "held"
        self.buyer = entry.buyer
        self.created_ms = entry.at_ms
        self.expires_ms = entry.expires_at_ms or 0
        self.ended_ms: int | None = None
        self.reference: str | None = None
        self.reason: str | None = None
        self.reacquired = False
        self.place = (entry.epoch, entry.seq)
        details = entry.details or {}
        self.metadata: dict[str, Any] = json.loads(details.get("metadata") or "{}")
        self.lines: list[list[Any]]
        if details.get("lines"):
            self.lines = [[sku, pool, units, 0, 0, asked] for sku, pool, units, asked in details["lines"]]
        else:
            self.lines = [[change.sku, change.pool, change.held, 0, 0, None] for change in entry.changes]
        self.units = units_of(self.lines)
        self.sold: dict[Pool, int] = {}

    def close(self, taken: dict[Pool, int]) -> None:
        """What was sold fills the lines from the first; the rest of each went back."""
        left = dict(taken)
        for line in self.lines:
            pool = (line[0], line[1])
            line[3] = min(line[2], left.get(pool, 0))
            line[4] = line[2] - line[3]
            left[pool] = left.get(pool, 0) - line[3]


def units_of(lines: Iterable[Any]) -> dict[Pool, int]:
    """Lines of one pool add up; pools without units are left out."""
    units: dict[Pool, int] = {}
    for line in lines:
        if line[2]:
            units[line[0], line[1]] = units.get((line[0], line[1]), 0) + line[2]
    return units


def moved(entry: Entry, bucket: int) -> dict[Pool, int]:
    """Net units into (or, negative, out of) one bucket by pool, zeros left out."""
    changes = entry.changes
    if len(changes) == 1:  # most entries, and this is asked several times of each
        quantity = changes[0][2:][bucket]
        return {(changes[0].sku, changes[0].pool): quantity} if quantity else {}
    units: dict[Pool, int] = {}
    for change in changes:
        quantity = change[2:][bucket]
        if quantity:
            units[change.sku, change.pool] = units.get((change.sku, change.pool), 0) + quantity
    return {pool: quantity for pool, quantity in units.items() if quantity}


class Books:
    """Everything about one partition after the entries taken in so far."""

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.place: Place = (0, 0)
        self.clock_ms = 0
        self.chain = ""
        self.chains: set[str] = set()
        self.last: Entry | None = None
        self.pools: dict[Pool, PoolBook] = {}
        self.claims: dict[str, Claim] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.known: set[str] = set()
        self.shares: dict[tuple[str, str], int] = {}

    def pool(self, pool: Pool) -> PoolBook:
        """The pool's book; one that nothing has named yet is empty."""
        book = self.pools.get(pool)
        if book is None:
            book = self.pools[pool] = PoolBook()
        return book

    def apply(self, entry: Entry) -> None:
        """Take the next entry in."""
        self.last = entry
        self.place = (entry.epoch, entry.seq)
        self.clock_ms = max(self.clock_ms, entry.at_ms)
        if entry.chain != self.chain:
            self.chain = entry.chain
            self.chains.add(entry.chain)
        for change in entry.changes:
            buckets = self.pool((change.sku, change.pool)).buckets
            for at, units in enumerate(change[2:]):
                buckets[at] += units
            self.known.add(change.sku)
        if entry.kind in OF_A_HOLD:
            self._life(entry)
        elif entry.kind == "policy":
            self._policy(entry)
        if entry.buyer:
            self._share(entry, entry.buyer)

    def _life(self, entry: Entry) -> None:
        if entry.kind == "hold":
            claim = self.claims[entry.hold or ""] = Claim(entry)
            self._due(claim)
            return
        found = self.claims.get(entry.hold or "")
        if found is None:
            return
        claim = found
        claim.place = (entry.epoch, entry.seq)
        if entry.kind == "extend":
            claim.expires_ms = entry.expires_at_ms or claim.expires_ms
            self._due(claim)
            return
        if entry.kind == "amend":
            lines = (entry.details or {}).get("lines") or []
            claim.lines = [[sku, pool, units, 0, 0, None] for sku, pool, units, *_ in lines]
            claim.units = units_of(claim.lines)
            self._due(claim)
            return
        claim.ended_ms = entry.at_ms
        for pool in claim.units:
            self.pool(pool).overdue.discard(claim.id)
        if entry.kind == "commit":
            claim.state, claim.reference, claim.reason = "committed", entry.reference, None
            claim.reacquired = bool((entry.details or {}).get("reacquired"))
            claim.sold = moved(entry, COMMITTED)
            claim.close(claim.sold)
        elif entry.kind == "release":
            claim.state, claim.reason = "released", entry.reason
            claim.close({})
        else:
            claim.state = "expired"

    def _due(self, claim: Claim) -> None:
        for pool in claim.units:
            heapq.heappush(self.pool(pool).due, (claim.expires_ms, claim.id))

    def overdue_units(self, pool: Pool) -> int:
        """Units of the pool under holds whose deadline the ledger's own clock has passed."""
        book = self.pool(pool)
        while book.due and book.due[0][0] <= self.clock_ms:
            expires_ms, id = heapq.heappop(book.due)
            claim = self.claims.get(id)
            if claim is not None and claim.state == "held" and claim.expires_ms == expires_ms:
                book.overdue.add(id)
        return sum(self.claims[id].units.get(pool, 0) for id in book.overdue)

    def _policy(self, entry: Entry) -> None:
        if not entry.changes:
            return
        sku, details = entry.changes[0].sku, entry.details or {}
        self.policies[sku] = details
        for name, (safety_stock, oversell_allowance) in details.get("pools", {}).items():
            book = self.pool((sku, name))
            book.safety_stock, book.oversell_allowance = safety_stock, oversell_allowance

    def _share(self, entry: Entry, buyer: str) -> None:
        for change in entry.changes:
            units = 0
            if entry.kind in OF_A_HOLD:
                units = change.held + change.committed
            elif entry.kind in GIVING_BACK:
                units = -change.available
            if units:
                self.shares[buyer, change.sku] = self.shares.get((buyer, change.sku), 0) + units

    def limit(self, sku: str) -> int | None:
        """The limit per buyer that binds; None too while what was held before it is still being counted."""
        policy = self.policies.get(sku, {})
        most = policy.get("max_per_buyer")
        return int(most) if most and policy.get("counted") == -1 else None
