"""The reference's only memory: a list of entries. Every counter, hold and policy is found by reading it from the start.

Nothing here is fast and nothing is stored twice; that is the point. The product keeps counters and changes
them; this derives them, so that the two cannot be wrong in the same way.
"""

from typing import Any

BUCKETS = ("outside", "available", "held", "committed", "damaged", "in_transit")


class Posting:
    """`quantity` units (signed) into one bucket of one pool."""

    def __init__(self, sku: str, pool: str, bucket: str, quantity: int) -> None:
        assert bucket in BUCKETS
        self.sku, self.pool, self.bucket, self.quantity = sku, pool, bucket, quantity


class BookEntry:
    """One command that changed something."""

    def __init__(self, seq: int, at_ms: int, kind: str, postings: list[Posting], **facts: Any) -> None:
        self.seq, self.at_ms, self.kind, self.postings = seq, at_ms, kind, postings
        self.hold: str | None = facts.pop("hold", None)
        self.key: str | None = facts.pop("key", None)
        self.buyer: str | None = facts.pop("buyer", None)
        self.expires_at_ms: int | None = facts.pop("expires_at_ms", None)
        self.reference: str | None = facts.pop("reference", None)
        self.reason: str | None = facts.pop("reason", None)
        self.about: set[tuple[str, str]] = facts.pop("about", None) or {(p.sku, p.pool) for p in postings}
        """The (sku, pool) pairs that the entry says something about; their shortfall is its shortfall."""
        self.facts: dict[str, Any] = facts
        self.shortfall: int | None = None

    def net(self) -> dict[tuple[str, str, str], int]:
        """(sku, pool, bucket) → signed units, zeros left out."""
        sums: dict[tuple[str, str, str], int] = {}
        for posting in self.postings:
            place = (posting.sku, posting.pool, posting.bucket)
            sums[place] = sums.get(place, 0) + posting.quantity
        return {place: quantity for place, quantity in sums.items() if quantity}


class Claim:
    """A hold as the entries read so far leave it."""

    def __init__(self, entry: BookEntry) -> None:
        self.id = entry.hold
        self.state = "held"
        self.buyer = entry.buyer
        self.metadata: str | None = entry.facts["metadata"]
        self.created_at_ms = entry.at_ms
        self.expires_at_ms = entry.expires_at_ms or 0
        self.ended_at_ms: int | None = None
        self.reference: str | None = None
        self.reason: str | None = None
        self.reacquired = False
        self.lines: list[ClaimLine] = [ClaimLine(*line) for line in entry.facts["lines"]]
        self.seq = entry.seq

    def units(self) -> dict[tuple[str, str], int]:
        """(sku, pool) → units claimed, over all lines of that pool."""
        sums: dict[tuple[str, str], int] = {}
        for line in self.lines:
            sums[line.sku, line.pool] = sums.get((line.sku, line.pool), 0) + line.quantity
        return sums

    def read(self, entry: BookEntry) -> None:
        """Take in a later entry of the same hold."""
        self.seq = entry.seq
        if entry.kind == "extend":
            self.expires_at_ms = entry.expires_at_ms or 0
            return
        if entry.kind == "amend":
            self.lines = [ClaimLine(*line) for line in entry.facts["lines"]]
            return
        self.ended_at_ms = entry.at_ms
        if entry.kind == "commit":
            self.state, self.reference, self.reason = "committed", entry.reference, None
            self.reacquired = entry.facts["reacquired"]
            self._share_out(entry.facts["sold"])
        elif entry.kind == "release":
            self.state, self.reason = "released", entry.reason
            self._share_out({})
        else:
            assert entry.kind == "expire"
            self.state = "expired"

    def _share_out(self, sold: dict[tuple[str, str], int]) -> None:
        """Units sold of a pool fill its lines from the first; what is left of each goes back."""
        left = dict(sold)
        for line in self.lines:
            line.committed = min(line.quantity, left.get((line.sku, line.pool), 0))
            line.released = line.quantity - line.committed
            left[line.sku, line.pool] = left.get((line.sku, line.pool), 0) - line.committed


class ClaimLine:
    """`requested` is None where everything asked for was granted."""

    def __init__(self, sku: str, pool: str, quantity: int, requested: int | None) -> None:
        self.sku, self.pool, self.quantity, self.requested = sku, pool, quantity, requested
        self.committed = 0
        self.released = 0


OF_A_HOLD = ("hold", "commit", "release", "expire", "extend", "amend")


class Books:
    """The list, and the questions that can be asked of it."""

    def __init__(self) -> None:
        self.entries: list[BookEntry] = []

    @property
    def seq(self) -> int:
        return len(self.entries)

    def units(self, sku: str, pool: str, bucket: str) -> int:
        """What every posting so far adds up to in one bucket."""
        return sum(
            posting.quantity
            for entry in self.entries
            for posting in entry.postings
            if (posting.sku, posting.pool, posting.bucket) == (sku, pool, bucket)
        )

    def pools(self, sku: str) -> set[str]:
        """Every pool of the SKU that a posting or its policy has named."""
        named = {posting.pool for entry in self.entries for posting in entry.postings if posting.sku == sku}
        return named | set(self.policy(sku)["pools"])

    def knows(self, sku: str) -> bool:
        """A SKU is known once a policy or a receipt has named it."""
        return any(
            entry.facts.get("policy_of") == sku
            or (entry.kind == "receipt" and any(posting.sku == sku for posting in entry.postings))
            for entry in self.entries
        )

    def policy(self, sku: str) -> dict[str, Any]:
        """The fields of the last policy entry; `pools` is always there."""
        fields: dict[str, Any] = {}
        for entry in self.entries:
            if entry.facts.get("policy_of") == sku:
                fields = entry.facts["fields"]
        return {"pools": {}, **fields}

    def claims(self) -> dict[str, Claim]:
        """Every hold there ever was, as it stands."""
        found: dict[str, Claim] = {}
        for entry in self.entries:
            if entry.kind == "hold":
                claim = Claim(entry)
                found[str(claim.id)] = claim
            elif entry.kind in OF_A_HOLD:
                found[str(entry.hold)].read(entry)
        return found

    def share(self, buyer: str, sku: str) -> int:
        """Units of the SKU that count against the buyer's limit: held or sold, and not given back."""
        units = 0
        for entry in self.entries:
            if entry.buyer != buyer:
                continue
            for posting in entry.postings:
                if posting.sku == sku and entry.kind in OF_A_HOLD and posting.bucket in ("held", "committed"):
                    units += posting.quantity
                if posting.sku == sku and entry.kind in ("cancel", "return") and posting.bucket == "available":
                    units -= posting.quantity
        return units

    def given_back(self, hold: str, place: tuple[str, str]) -> int:
        """Units of a sold hold's pool that a cancel or a return has named it for."""
        return sum(
            posting.quantity
            for entry in self.entries
            if entry.kind in ("cancel", "return") and entry.hold == hold
            for posting in entry.postings
            if (posting.sku, posting.pool, posting.bucket) == (*place, "available")
        )
