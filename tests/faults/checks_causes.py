"""No entry without a cause, and none that is not what its cause asked for."""

from typing import Any

from flashhold.domain.entries import MOVEMENT_KINDS, Entry
from tests.faults.books import AVAILABLE, COMMITTED, HELD, Books, Pool, moved
from tests.faults.index import APPLIED, REFUSED, REUSED, TURNED_AWAY, UNKNOWN, Call, Index
from tests.faults.verdict import Verdict


def check_cause(books: Books, index: Index, verdict: Verdict, entry: Entry) -> Call | None:
    """The first call that asked for the entry; it was not told No, and it asked for just this."""
    where = f"{entry.partition} {entry.epoch}/{entry.seq}"
    if index.is_declared(entry):
        return None
    asked = index.asked_by(entry)
    if not asked:
        verdict.add("no-cause", where, f"nobody sent a {entry.kind} with key {entry.idempotency_key} for {entry.hold}")
        return None
    causes = [call for call in asked if call.fate in (APPLIED, UNKNOWN)]
    if not causes:
        told = sorted({call.fate for call in asked if call.fate in (REFUSED, REUSED, TURNED_AWAY)})
        verdict.add("refused-yet-applied", where, f"{asked[0]} was {', '.join(told)}")
        return asked[0]
    wrong = [asked_otherwise(books, call.request, entry) for call in causes]
    if all(wrong):
        verdict.add("not-as-asked", where, f"{causes[0]}: {wrong[0]}")
    return asked[0]


def asked_otherwise(books: Books, request: dict[str, Any], entry: Entry) -> str | None:
    """In what the entry is not what the request of its verb, which caused it, means; None where it is."""
    if entry.kind in MOVEMENT_KINDS:
        return _moved_otherwise(request, entry)
    if entry.kind != "hold" and request.get("hold") != entry.hold:
        return f"asked for hold {request.get('hold')}, the entry is of {entry.hold}"
    lines = None if request.get("lines") is None else wanted(request["lines"])
    match entry.kind:
        case "hold":
            return _held_otherwise(request, lines or {}, entry)
        case "commit":
            if (entry.details or {}).get("reacquired") and request.get("if_expired") != "reacquire":
                return "an expired hold, and not to take it again"
            return sold_otherwise(books, request, entry)
        case "release":
            same = request.get("reason") == entry.reason
            return None if same else f"reason {request.get('reason')!r}, the entry has {entry.reason!r}"
        case "extend":
            most_ms = entry.at_ms + request["ttl_seconds"] * 1000
            late = (entry.expires_at_ms or 0) > most_ms
            return f"a deadline of {most_ms}, the entry has {entry.expires_at_ms}" if late else None
        case "amend":
            kept: dict[Pool, int] = {}
            for sku, pool, units, *_ in (entry.details or {}).get("lines") or []:
                kept[sku, pool] = kept.get((sku, pool), 0) + units
            return None if kept == lines else f"lines {lines}, the entry has {kept}"
    return None


def wanted(lines: list[dict[str, Any]]) -> dict[Pool, int]:
    """Lines of a request, added up by pool."""
    units: dict[Pool, int] = {}
    for line in lines:
        pool = (line["sku"], line.get("pool") or "default")
        units[pool] = units.get(pool, 0) + line["quantity"]
    return units


def _held_otherwise(request: dict[str, Any], lines: dict[Pool, int], entry: Entry) -> str | None:
    if request.get("buyer") != entry.buyer:
        return f"buyer {request.get('buyer')!r}, the entry has {entry.buyer!r}"
    ttl_s = request.get("ttl_seconds")
    if ttl_s is not None and entry.expires_at_ms != entry.at_ms + ttl_s * 1000:
        return f"{ttl_s} s to live, the entry has {(entry.expires_at_ms or 0) - entry.at_ms} ms"
    held = moved(entry, HELD)
    if request.get("allow_partial"):
        most = all(0 < units <= lines.get(pool, 0) for pool, units in held.items())
        return None if most else f"at most {lines}, the entry holds {held}"
    return None if held == lines else f"lines {lines}, the entry holds {held}"


def sold_otherwise(books: Books, request: dict[str, Any], entry: Entry) -> str | None:
    """In what a commit's entry is not the sale that the request means, whichever request caused it."""
    if request.get("reference") != entry.reference:
        return f"reference {request.get('reference')!r}, the entry has {entry.reference!r}"
    claim = books.claims.get(entry.hold or "")
    if request.get("lines") is not None:
        asked = wanted(request["lines"])
    elif claim is not None:
        asked = claim.units
    else:
        return None
    sold = moved(entry, COMMITTED)
    return f"lines {asked}, the entry sells {sold}" if asked != sold else None


def _moved_otherwise(request: dict[str, Any], entry: Entry) -> str | None:
    for name, written in (("type", entry.kind), ("reason", entry.reason), ("reference", entry.reference)):
        if request.get(name) != written:
            return f"{name} {request.get(name)!r}, the entry has {written!r}"
    if request.get("hold") != entry.hold:
        return f"hold {request.get('hold')!r}, the entry has {entry.hold!r}"
    pool, units = (request["sku"], request.get("pool") or "default"), request["quantity"]
    signs = {"shipment": (COMMITTED, -1), "damage": (AVAILABLE, -1), "transfer": (AVAILABLE, -1)}
    bucket, sign = signs.get(entry.kind, (AVAILABLE, 1))
    expected = {pool: sign * units}
    if entry.kind == "transfer":
        expected[request["sku"], request["to_pool"]] = units
    found = moved(entry, bucket)
    return None if found == expected else f"{expected}, the entry moves {found}"
