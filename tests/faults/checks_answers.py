"""What an answer says, held against the ledger at the very place that the answer names."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flashhold.domain.entries import BUCKETS, Entry
from tests.faults.books import COMMITTED, DAMAGED, HELD, IN_TRANSIT, Books, Claim
from tests.faults.checks_causes import sold_otherwise, wanted
from tests.faults.history import CHANGES
from tests.faults.index import APPLIED, READ, REFUSED, Call

Found = tuple[str, str] | None
"""The kind of violation and what is wrong, or None."""

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS: dict[int, str] = {}


def instant(at_ms: int | None) -> str | None:
    """RFC 3339, UTC, milliseconds, as the contract writes times."""
    if at_ms is None:
        return None
    second, ms = divmod(at_ms, 1000)
    text = _SECONDS.get(second)
    if text is None:
        text = _SECONDS[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms:03d}Z"


def judge(books: Books, call: Call, keyed: dict[str, tuple[str, int, int]]) -> Found:
    """The books stand at the newest entry that is not behind the answer's place. `keyed`: where each key's entry is."""
    assert call.place is not None
    if call.fate == APPLIED:
        return _acknowledged(books, call, keyed)
    epoch, seq = books.place
    # A decision that changed nothing under a new epoch stands at the last entry of the one before.
    here = call.place == books.place or (call.place[0] > epoch and call.place[1] == seq)
    if not here:
        return "place-missing", f"decided at {call.place}, the ledger goes from {books.place} past it"
    if call.fate == READ:
        return _read_hold(books, call) if call.verb == "read_hold" else _read_stock(books, call)
    return _refused(books, call)


def incomplete(call: Call) -> str | None:
    """A decision says where in the ledger's order it fell, and one on a change whether it is repeated."""
    if call.fate not in (APPLIED, READ, REFUSED):
        return None
    if call.place is None:
        return f"{call.body.get('code', 'an answer')} without its place in the ledger"
    decides = call.verb in CHANGES and call.replayed is None
    return "without Idempotency-Replayed" if decides else None


def _acknowledged(books: Books, call: Call, keyed: dict[str, tuple[str, int, int]]) -> Found:
    """Every acknowledged change is in the ledger, where it says, once, with the content that was acknowledged."""
    entry = books.last if books.last is not None and books.place == call.place else None
    own_place = keyed.get(call.key) if call.key is not None else None
    if own_place is not None and call.place is not None and own_place != (call.partition, *call.place):
        return "acknowledged-elsewhere", f"answered {call.partition} {call.place}, its key's entry is at {own_place}"
    if entry is None:
        return "acknowledged-lost", f"nothing at {call.place}"
    if not _stands_for(entry, call):
        return "acknowledged-lost", f"at {call.place} is a {entry.kind} with key {entry.idempotency_key}"
    if call.verb == "move":
        wrong = _entry_differs(entry, call.body)
    else:
        claim = books.claims.get(str(call.body.get("id")))
        wrong = "of a hold that was never made" if claim is None else _hold_differs(claim, call.body)
        named = call.request.get("hold", call.body.get("id"))
        if named != entry.hold or named != call.body.get("id"):
            wrong = f"about {call.body.get('id')}, asked for {named}, the entry is of {entry.hold}"
    if wrong:
        return "answer-differs", wrong
    if call.verb == "commit" and (other := sold_otherwise(books, call.request, entry)):
        return "not-as-asked", other  # also where the hold was sold at another call's request
    return None


def _stands_for(entry: Entry, call: Call) -> bool:
    """Whether the entry is the call's own, or the earlier one of a hold whose state the call found good enough."""
    if entry.idempotency_key == call.key:
        mine = call.request.get("type") if call.verb == "move" else call.verb
        if entry.kind == mine:
            return True
    if call.verb in ("hold", "move") or entry.hold != call.request.get("hold"):
        return False
    if call.verb in ("commit", "release"):
        return entry.kind == call.verb and call.replayed is True
    return entry.kind in ("hold", "extend", "amend")  # nothing was gained, so nothing was written


def _hold_differs(claim: Claim, body: dict[str, Any]) -> str | None:
    said = (
        body.get("state"), body.get("buyer"), body.get("created_at"), body.get("expires_at"), body.get("ended_at"),
        body.get("reference"), body.get("reason"), body.get("reacquired"), (body.get("epoch"), body.get("seq")),
        body.get("metadata") or {},
    )  # fmt: skip
    stands = (
        claim.state, claim.buyer, instant(claim.created_ms), instant(claim.expires_ms), instant(claim.ended_ms),
        claim.reference, claim.reason, claim.reacquired, claim.place, claim.metadata,
    )  # fmt: skip
    if said != stands:
        differing = [(was, is_) for was, is_ in zip(said, stands, strict=True) if was != is_]
        return f"says {[was for was, _ in differing]}, ledger {[is_ for _, is_ in differing]}"
    lines = [
        [line["sku"], line["pool"], line["quantity"], line["committed"], line["released"], line.get("requested")]
        for line in body.get("lines", ())
    ]
    return None if lines == claim.lines else f"says lines {lines}, ledger {claim.lines}"


def _entry_differs(entry: Entry, body: dict[str, Any]) -> str | None:
    facts = {
        "partition": entry.partition, "epoch": entry.epoch, "seq": entry.seq, "at": instant(entry.at_ms),
        "kind": entry.kind, "hold": entry.hold, "buyer": entry.buyer, "reference": entry.reference,
        "reason": entry.reason, "idempotency_key": entry.idempotency_key, "expires_at": instant(entry.expires_at_ms),
        "shortfall": entry.shortfall or None, "chain": entry.chain,
    }  # fmt: skip
    for name, fact in facts.items():
        if body.get(name) != fact:
            return f"says {name} {body.get(name)!r}, ledger {fact!r}"
    postings = [
        {"sku": change.sku, "pool": change.pool, "bucket": bucket, "quantity": quantity}
        for change in entry.changes
        for bucket, quantity in zip(BUCKETS, change[2:], strict=True)
        if quantity
    ]
    return None if body.get("postings") == postings else f"says {body.get('postings')}, ledger {postings}"


def _read_hold(books: Books, call: Call) -> Found:
    claim = books.claims.get(str(call.request.get("hold")))
    if claim is None:
        return "read-differs", "a hold that was never made"
    body = call.body
    if claim.state == "held" and body.get("state") == "expired" and body.get("ended_at") == body.get("expires_at"):
        body = {**body, "state": "held", "ended_at": None}  # overdue, and read from the ledger before it was swept
    wrong = _hold_differs(claim, body)
    return ("read-differs", wrong) if wrong else None


def _read_stock(books: Books, call: Call) -> Found:
    """A strong read is the fold at its place, and nothing overdue is left in it."""
    pool = (str(call.request.get("sku")), str(call.request.get("pool") or "default"))
    book = books.pool(pool)
    buckets = book.buckets
    stands = {
        "sku": pool[0], "pool": pool[1], "on_hand": book.on_hand, "held": buckets[HELD],
        "committed": buckets[COMMITTED], "damaged": buckets[DAMAGED], "in_transit": buckets[IN_TRANSIT],
        "safety_stock": book.safety_stock, "oversell_allowance": book.oversell_allowance, "sellable": book.sellable,
    }  # fmt: skip
    wrong = [
        f"{name} {call.body.get(name)}, ledger {stands[name]}" for name in stands if call.body.get(name) != stands[name]
    ]
    if not wrong and (overdue := books.overdue_units(pool)):
        wrong = [f"{overdue} units are overdue and counted as held"]
    return ("read-differs", "; ".join(wrong)) if wrong else None


def _refused(books: Books, call: Call) -> Found:
    """Every refusal has its reason in the state that it was decided on."""
    rule = _REASONS.get(str(call.body.get("code")))
    wrong = rule(books, call) if rule is not None else f"{call.body.get('code')} is no reason for a {call.verb}"
    return ("refused-without-reason", wrong) if wrong else None


def _insufficient_stock(books: Books, call: Call) -> str | None:
    """Short by what it says: what is overdue and not swept counts as free, and an amended hold's own units too."""
    short = call.body.get("lines") or []
    claim = books.claims.get(str(call.request.get("hold")))
    asked = call.request.get("lines")
    needs = wanted(asked) if asked is not None else dict(claim.units) if claim is not None else {}
    if not short:
        return "names no short line"
    for line in short:
        pool = (line["sku"], line["pool"])
        own = claim.units.get(pool, 0) if claim is not None and call.verb == "amend" else 0
        free = books.pool(pool).sellable + own
        if line["requested"] != needs.get(pool) or line["sellable"] != free:
            return f"says {line}, asked was {needs.get(pool)}, sellable was {free}"
        free += books.overdue_units(pool)
        if free >= line["requested"] or (call.request.get("allow_partial") and free > 0):
            return f"{free} of {pool} were sellable or overdue, {line['requested']} asked for"
    return None


def _limit_exceeded(books: Books, call: Call) -> str | None:
    sku, limit, already = (call.body.get(name) for name in ("sku", "limit", "already"))
    claim = books.claims.get(str(call.request.get("hold")))
    buyer = claim.buyer if claim is not None else call.request.get("buyer")
    share, bound = books.shares.get((str(buyer), str(sku)), 0), books.limit(str(sku))
    if bound is None:
        return None if books.policies.get(str(sku), {}).get("max_per_buyer") == limit else f"{sku} has no limit {limit}"
    if (bound, share) != (limit, already):
        return f"says {already} of {limit}, the ledger {share} of {bound}"
    asked = wanted(call.request.get("lines") or [])
    more = sum(units for pool, units in asked.items() if pool[0] == sku)
    fits = call.verb == "hold" and not call.request.get("allow_partial") and share + more <= bound
    return f"{share} and {more} more are within {bound}" if fits else None


def _final(state: str) -> Callable[[Books, Call], str | None]:
    def rule(books: Books, call: Call) -> str | None:
        claim = books.claims.get(str(call.request.get("hold")))
        stands = "unknown" if claim is None else claim.state
        return None if stands == state else f"the hold is {stands}, not {state}"

    return rule


def _unknown_hold(books: Books, call: Call) -> str | None:
    claim = books.claims.get(str(call.request.get("hold")))
    return None if claim is None else f"{claim.id} is {claim.state}"


def _unknown_sku(books: Books, call: Call) -> str | None:
    sku = call.body.get("sku") or call.request.get("sku")
    return f"{sku} was known" if sku in books.known else None


def _not_open(books: Books, call: Call) -> str | None:
    opens_ms = books.policies.get(str(call.body.get("sku")), {}).get("opens_at_ms") or 0
    return None if opens_ms > books.clock_ms else f"opens at {opens_ms}, the clock was at {books.clock_ms} already"


def _closed(books: Books, call: Call) -> str | None:
    closes_ms = books.policies.get(str(call.body.get("sku")), {}).get("closes_at_ms")
    return None if closes_ms else "its sale has no end"


def _movement_refused(books: Books, call: Call) -> str | None:
    request = call.request
    book = books.pool((str(request.get("sku")), str(request.get("pool") or "default")))
    kind, units = request.get("type"), request.get("quantity", 0)
    if request.get("hold") or kind in ("receipt", "return") or (kind == "adjustment" and units > 0):
        return None  # about what a hold has sold, or about more than can be counted
    bound = book.buckets[COMMITTED] if kind in ("shipment", "cancel") else book.on_hand
    bound = max(0, book.buckets[1]) if kind == "transfer" else bound
    return f"{abs(units)} asked, the ledger allows {bound}" if abs(units) <= bound else None


_REASONS: dict[str, Callable[[Books, Call], str | None]] = {
    "insufficient-stock": _insufficient_stock,
    "purchase-limit-exceeded": _limit_exceeded,
    "hold-expired": _final("expired"),
    "hold-released": _final("released"),
    "already-committed": _final("committed"),
    "unknown-hold": _unknown_hold,
    "unknown-sku": _unknown_sku,
    "sale-not-open": _not_open,
    "sale-closed": _closed,
    "movement-refused": _movement_refused,
}
