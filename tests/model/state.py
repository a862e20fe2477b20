"""What the reference knows at one instant, and how it writes an entry."""

from collections.abc import Iterable
from typing import Any

from flashhold.domain.model import Line
from flashhold.domain.reasons import Reason
from tests.model.books import BookEntry, Books, Claim, Posting


class No(Exception):
    """A refusal on its way out."""

    def __init__(self, reason: Reason, **detail: Any) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class State:
    """The books, the clock, and the figures that follow from the two."""

    def __init__(
        self, *, now_ms: int = 0, hold_ttl_ms: int = 600_000, hold_ttl_max_ms: int = 86_400_000, partition: str = "p00"
    ) -> None:
        self.now_ms = now_ms
        self.hold_ttl_ms, self.hold_ttl_max_ms = hold_ttl_ms, hold_ttl_max_ms
        self.partition, self.epoch = partition, 1
        self.books = Books()

    def overdue(self) -> list[Claim]:
        """Holds past their deadline that no entry has ended yet; they count nowhere."""
        return [c for c in self.books.claims().values() if c.state == "held" and c.expires_at_ms <= self.now_ms]

    def unclaimed(self, sku: str, pool: str) -> int:
        """The bucket `available`, with what overdue holds still seem to hold."""
        late = sum(claim.units().get((sku, pool), 0) for claim in self.overdue())
        return self.books.units(sku, pool, "available") + late

    def sellable(self, sku: str, pool: str) -> int:
        """What a buyer could be promised now; negative while there is a shortfall."""
        safety, oversell = self._pool_policy(sku, pool)
        return self.unclaimed(sku, pool) - safety + oversell

    def _as_booked(self, place: tuple[str, str]) -> int:
        """Sellable by the entries alone, as an auditor finds it: an overdue hold counts until it has expired."""
        safety, oversell = self._pool_policy(*place)
        return self.books.units(*place, "available") - safety + oversell

    def share(self, buyer: str, sku: str) -> int:
        """What counts against the buyer's limit now."""
        late = sum(
            line.quantity for claim in self.overdue() if claim.buyer == buyer for line in claim.lines if line.sku == sku
        )
        return self.books.share(buyer, sku) - late

    def _pool_policy(self, sku: str, pool: str) -> tuple[int, int]:
        return self.books.policy(sku)["pools"].get(pool, (0, 0))

    def _known(self, sku: str) -> None:
        if not self.books.knows(sku):
            raise No(Reason.UNKNOWN_SKU, sku=sku)

    def _claim(self, identity: str) -> Claim:
        claims = self.books.claims()
        if identity not in claims:
            raise No(Reason.UNKNOWN_HOLD)
        if claims[identity].state == "held" and claims[identity].expires_at_ms <= self.now_ms:
            self.expire(identity)
        return self.books.claims()[identity]

    def _freed(self, place: tuple[str, str], wanted: int) -> int:
        """Sellable units of the pool, after expiring what is overdue there as far as `wanted` needs it."""
        for claim in sorted(self.overdue(), key=lambda claim: claim.expires_at_ms):
            if self._as_booked(place) < wanted and claim.units().get(place):
                self.expire(str(claim.id))
        return self._as_booked(place)

    def expire(self, identity: str) -> BookEntry:
        """Write down that an overdue hold has expired."""
        claim = self.books.claims()[identity]
        assert claim.state == "held", f"{identity} is {claim.state}, it cannot expire"
        assert claim.expires_at_ms <= self.now_ms, f"{identity} expired {claim.expires_at_ms - self.now_ms} ms early"
        postings = [
            Posting(line.sku, line.pool, bucket, sign * line.quantity)
            for line in claim.lines
            for bucket, sign in (("held", -1), ("available", 1))
        ]
        return self._write("expire", postings, hold=identity, buyer=claim.buyer)

    def _write(self, kind: str, postings: list[Posting], **facts: Any) -> BookEntry:
        postings = [posting for posting in postings if posting.quantity]
        for sku in {posting.sku for posting in postings}:
            assert sum(p.quantity for p in postings if p.sku == sku) == 0, "an entry's postings sum to zero"
        entry = BookEntry(self.books.seq + 1, self.now_ms, kind, postings, **facts)
        self.books.entries.append(entry)
        entry.shortfall = sum(max(0, -self._as_booked(place)) for place in entry.about) or None
        return entry


def add_up(lines: Iterable[Line]) -> dict[tuple[str, str], int]:
    """Lines of one pool of one SKU are one claim, at the place of the first."""
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        sums[line.sku, line.pool] = sums.get((line.sku, line.pool), 0) + line.quantity
    return sums


def of_sku(units: dict[tuple[str, str], int], sku: str) -> int:
    return sum(quantity for (name, _), quantity in units.items() if name == sku)


def claiming(units: dict[tuple[str, str], int]) -> list[Posting]:
    return [
        Posting(*place, bucket, sign * quantity)
        for place, quantity in units.items()
        for bucket, sign in (("available", -1), ("held", 1))
    ]
