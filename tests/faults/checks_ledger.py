"""Rules that the ledger keeps by itself, whatever anybody was told. Each is asked about one entry at a time: those of
`BEFORE` with the books as they were, those of `AFTER` with the entry taken in. A rule gives what is wrong, or None."""

from collections.abc import Callable

from flashhold.domain.entries import MOVEMENT_KINDS, Entry
from tests.faults.books import AVAILABLE, COMMITTED, DAMAGED, HELD, IN_TRANSIT, OF_A_HOLD, OUTSIDE, Books, moved

Rule = Callable[[Books, Entry], str | None]

FINAL = ("committed", "released", "expired")


def epoch_goes_back(books: Books, entry: Entry) -> str | None:
    """Epochs only grow."""
    epoch = books.place[0]
    return f"epoch {entry.epoch} after {epoch}" if entry.epoch < epoch else None


def seq_forks(books: Books, entry: Entry) -> str | None:
    """A place is issued once, and a new epoch does not begin anew: holds are named by the seq of their making."""
    epoch, seq = books.place
    return f"{entry.kind} after {epoch}/{seq}" if entry.epoch >= epoch and entry.seq <= seq else None


def seq_has_a_gap(books: Books, entry: Entry) -> str | None:
    """Seq counts on without a gap."""
    epoch, seq = books.place
    return f"after {epoch}/{seq}" if entry.epoch >= epoch and entry.seq > seq + 1 else None


def clock_goes_back(books: Books, entry: Entry) -> str | None:
    """The store's clock is never put back."""
    return f"{books.clock_ms - entry.at_ms} ms back" if entry.at_ms < books.clock_ms else None


def chain_breaks_a_batch(books: Books, entry: Entry) -> str | None:
    """A head belongs to one batch: entries that follow each other, of one instant and one epoch."""
    if not entry.chain or books.last is None:
        return None
    if entry.chain == books.chain:
        same = (entry.at_ms, entry.epoch) == (books.last.at_ms, books.last.epoch)
        return None if same else "the head of the batch before, at another instant"
    return "the head of an earlier batch" if entry.chain in books.chains else None


def born_twice(books: Books, entry: Entry) -> str | None:
    """A hold is made once."""
    return f"{entry.hold} exists" if entry.kind == "hold" and entry.hold in books.claims else None


def of_no_hold(books: Books, entry: Entry) -> str | None:
    """Only a hold that was made can be changed."""
    later = entry.kind in OF_A_HOLD and entry.kind != "hold"
    return f"{entry.hold} was never made" if later and entry.hold not in books.claims else None


def ended_twice(books: Books, entry: Entry) -> str | None:
    """A hold ends once, and then nothing happens to it; the marked re-acquire of an expired one is the exception."""
    claim = books.claims.get(entry.hold or "")
    if claim is None or claim.state == "held" or entry.kind not in OF_A_HOLD or entry.kind == "hold":
        return None
    marked = bool((entry.details or {}).get("reacquired"))
    if claim.state == "expired" and entry.kind == "commit" and marked:
        return None
    return f"{entry.kind} of {claim.id}, which is {claim.state}"


def reacquired_alive(books: Books, entry: Entry) -> str | None:
    """Only an expired hold is re-acquired."""
    claim = books.claims.get(entry.hold or "")
    marked = entry.kind == "commit" and (entry.details or {}).get("reacquired")
    return f"{entry.hold} is {claim.state}" if marked and claim is not None and claim.state != "expired" else None


def expired_early(books: Books, entry: Entry) -> str | None:
    """Nothing expires before its deadline, as extended."""
    claim = books.claims.get(entry.hold or "")
    early = entry.kind == "expire" and claim is not None and entry.at_ms < claim.expires_ms
    return f"{entry.hold}: {claim.expires_ms - entry.at_ms} ms early" if early and claim is not None else None


def changed_late(books: Books, entry: Entry) -> str | None:
    """An overdue hold is expired for every verb, swept or not."""
    claim = books.claims.get(entry.hold or "")
    if claim is None or claim.state != "held" or entry.kind not in ("commit", "release", "extend", "amend"):
        return None
    late_ms = entry.at_ms - claim.expires_ms
    return f"{entry.kind} of {claim.id} {late_ms} ms after its deadline" if late_ms >= 0 else None


def deadline_differs(books: Books, entry: Entry) -> str | None:
    """Only `extend` moves a deadline, and only forwards."""
    if entry.kind not in OF_A_HOLD:
        return None
    given = entry.expires_at_ms or 0
    if entry.kind == "hold":
        return None if given > entry.at_ms else f"{entry.hold} is born with a deadline that has passed"
    claim = books.claims.get(entry.hold or "")
    if claim is None or (given > claim.expires_ms if entry.kind == "extend" else given == claim.expires_ms):
        return None
    return f"{entry.kind} of {claim.id}: deadline {given}, was {claim.expires_ms}"


def buyer_differs(books: Books, entry: Entry) -> str | None:
    """A hold stays its buyer's."""
    claim = books.claims.get(entry.hold or "")
    if claim is None or entry.kind == "hold" or entry.buyer == claim.buyer:
        return None
    ours = entry.kind in OF_A_HOLD or entry.kind in ("cancel", "return")
    return f"{entry.kind} for {entry.buyer}, {claim.id} is {claim.buyer}'s" if ours else None


def not_zero_sum(_: Books, entry: Entry) -> str | None:
    """The postings of an entry sum to zero for each SKU."""
    sums: dict[str, int] = {}
    for change in entry.changes:
        sums[change.sku] = sums.get(change.sku, 0) + sum(change[2:])
    wrong = {sku: units for sku, units in sums.items() if units}
    return f"{wrong} units from nowhere" if wrong else None


_ENDS = frozenset({"commit", "release", "expire"})
_NO_UNITS: dict[tuple[str, str], int] = {}


def units_not_returned(books: Books, entry: Entry) -> str | None:
    """Whoever ends a hold takes all of its units out of `held`."""
    claim = books.claims.get(entry.hold or "")
    if claim is None or claim.state != "held" or entry.kind not in _ENDS:
        return None
    given = {pool: -units for pool, units in moved(entry, HELD).items()}
    return f"{entry.kind} of {claim.units} gives back {given}" if given != claim.units else None


def wrong_postings(books: Books, entry: Entry) -> str | None:
    """A kind moves units between its own buckets only; what a hold's end does not sell becomes available."""
    available, held, committed = (moved(entry, bucket) for bucket in (AVAILABLE, HELD, COMMITTED))
    others = [moved(entry, bucket) for bucket in (OUTSIDE, DAMAGED, IN_TRANSIT)]
    if entry.kind in OF_A_HOLD and any(others):
        return f"{entry.kind} moves units that are not of holds"
    if entry.kind in ("extend", "policy") and (available or held or committed or any(others)):
        return f"{entry.kind} moves units"
    if entry.kind in ("hold", "release", "expire", "amend") and committed:
        return f"{entry.kind} sells units"
    if entry.kind == "hold" and (not held or min(held.values()) < 0):
        return f"a hold of {held}"
    if entry.kind == "amend":
        lines = (entry.details or {}).get("lines") or []
        return _amended_otherwise(books, entry, lines, held)
    if entry.kind == "commit":
        return _sold_otherwise(books, entry, held, committed)
    return _moved_otherwise(entry) if entry.kind in MOVEMENT_KINDS else None


def _amended_otherwise(
    books: Books, entry: Entry, lines: list[list[object]], held: dict[tuple[str, str], int]
) -> str | None:
    claim = books.claims.get(entry.hold or "")
    if claim is None:
        return None
    wanted: dict[tuple[str, str], int] = {pool: -units for pool, units in claim.units.items()}
    for sku, pool, units, *_ in lines:
        assert isinstance(sku, str) and isinstance(pool, str) and isinstance(units, int)
        wanted[sku, pool] = wanted.get((sku, pool), 0) + units
    wanted = {pool: units for pool, units in wanted.items() if units}
    return None if wanted == held else f"amend to {lines} moves {held}"


def _sold_otherwise(
    books: Books, entry: Entry, held: dict[tuple[str, str], int], committed: dict[tuple[str, str], int]
) -> str | None:
    claim = books.claims.get(entry.hold or "")
    if claim is None:
        return None
    too_many = [pool for pool, units in committed.items() if not 0 < units <= claim.units.get(pool, 0)]
    if too_many:
        return f"commit sells {committed} of {claim.units}"
    again = (entry.details or {}).get("reacquired")
    return f"a re-acquire changes held by {held}" if again and held else None


_ROUTES = {
    "receipt": (OUTSIDE, AVAILABLE), "return": (OUTSIDE, AVAILABLE), "shipment": (COMMITTED, OUTSIDE),
    "cancel": (COMMITTED, AVAILABLE), "damage": (AVAILABLE, DAMAGED), "transfer": (AVAILABLE, AVAILABLE),
    "adjustment": (OUTSIDE, AVAILABLE),
}  # fmt: skip


def _moved_otherwise(entry: Entry) -> str | None:
    taken_from, put_into = _ROUTES[entry.kind]
    strays = [bucket for bucket in range(6) if bucket not in (taken_from, put_into) and moved(entry, bucket)]
    if strays:
        return f"{entry.kind} touches other buckets"
    if entry.kind in ("transfer", "adjustment"):
        return None
    into = moved(entry, put_into)
    return None if len(into) == 1 and min(into.values()) > 0 else f"{entry.kind} moves {into}"


def purchase_limit_exceeded(books: Books, entry: Entry) -> str | None:
    """No entry lets a buyer hold and have bought more of a SKU than its limit."""
    if not entry.buyer or entry.kind not in ("hold", "amend", "commit"):
        return None
    more: dict[str, int] = {}
    for change in entry.changes:
        more[change.sku] = more.get(change.sku, 0) + change.held + change.committed
    for sku, units in more.items():
        limit, share = books.limit(sku), books.shares.get((entry.buyer, sku), 0)
        if limit is not None and units > 0 and share + units > limit:
            return f"{entry.buyer} has {share} of {sku} and gets {units}, limit {limit}"
    return None


def outside_the_sale(books: Books, entry: Entry) -> str | None:
    """No hold is made before its SKU's sale opens or after it has closed."""
    if entry.kind != "hold":
        return None
    for change in entry.changes:
        policy = books.policies.get(change.sku, {})
        opens_ms, closes_ms = policy.get("opens_at_ms") or 0, policy.get("closes_at_ms") or entry.at_ms + 1
        if not opens_ms <= entry.at_ms < closes_ms:
            return f"{change.sku} is on sale from {opens_ms} to {closes_ms}, held at {entry.at_ms}"
    return None


def below_zero(books: Books, entry: Entry) -> str | None:
    """No bucket holds fewer than no units; `available` may where more is promised than there is, see `oversold`."""
    for change in entry.changes:
        buckets = books.pool((change.sku, change.pool)).buckets
        if min(buckets[HELD:]) < 0:
            return f"{change.sku}, {change.pool}: {buckets}"
    return None


def _missing(books: Books, entry: Entry) -> int:
    return sum(max(0, -books.pool(pool).sellable) for pool in {(change.sku, change.pool) for change in entry.changes})


def oversold(books: Books, entry: Entry) -> str | None:
    """held + committed ≤ on_hand - safety_stock + oversell_allowance, unless the entry is a correction that says by how
    much it is not; what newly claims units never may pass it."""
    if not entry.shortfall and (missing := _missing(books, entry)):
        return f"{missing} units are promised that are not there"
    if entry.kind not in ("hold", "amend", "commit"):
        return None
    for pool, units in moved(entry, AVAILABLE).items():
        if units < 0 and books.pool(pool).sellable < 0:
            return f"{entry.kind} claims {-units} of {pool}, sellable is then {books.pool(pool).sellable}"
    return None


def shortfall_differs(books: Books, entry: Entry) -> str | None:
    """A marked shortfall is what its pools are short of."""
    if not entry.shortfall:
        return None
    missing = _missing(books, entry)
    return f"marked {entry.shortfall}, is {missing}" if missing != entry.shortfall else None


BEFORE: dict[str, Rule] = {
    "epoch-back": epoch_goes_back,
    "seq-fork": seq_forks,
    "seq-gap": seq_has_a_gap,
    "clock-back": clock_goes_back,
    "chain-in-batch": chain_breaks_a_batch,
    "born-twice": born_twice,
    "of-no-hold": of_no_hold,
    "ended-twice": ended_twice,
    "reacquired-alive": reacquired_alive,
    "expired-early": expired_early,
    "changed-late": changed_late,
    "deadline-differs": deadline_differs,
    "buyer-differs": buyer_differs,
    "not-zero-sum": not_zero_sum,
    "units-not-returned": units_not_returned,
    "wrong-postings": wrong_postings,
    "limit-exceeded": purchase_limit_exceeded,
    "outside-the-sale": outside_the_sale,
}
AFTER: dict[str, Rule] = {"below-zero": below_zero, "oversold": oversold, "shortfall-differs": shortfall_differs}
