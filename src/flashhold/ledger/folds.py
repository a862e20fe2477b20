"""A hold as its entries leave it. Pure, and the only place that knows how: pages fold, and whoever rebuilds a store."""

from collections import defaultdict
from collections.abc import Sequence

from flashhold.domain.entries import Entry
from flashhold.domain.model import Hold, HoldLine, HoldState


def fold_hold(entries: Sequence[Entry], now_ms: int) -> Hold:
    """The hold that `entries` (its own, in ledger order, the one that made it first) add up to.

    One whose deadline has passed by `now_ms` reads as expired at its deadline, swept or not.
    """
    hold = made_hold(entries[0])
    for entry in entries[1:]:
        hold = hold_after(hold, entry)
    if hold.state == HoldState.HELD and hold.expires_at_ms <= now_ms:
        hold = hold._replace(state=HoldState.EXPIRED, ended_at_ms=hold.expires_at_ms)
    return hold


def made_hold(first: Entry) -> Hold:
    """The hold as the entry that made it left it. Raises ValueError for any other entry."""
    if first.kind != "hold" or first.hold is None or first.expires_at_ms is None:
        raise ValueError(f"entry {first.epoch}/{first.seq} does not make a hold")
    return Hold(
        id=first.hold,
        state=HoldState.HELD,
        lines=_lines_of(first),
        buyer=first.buyer,
        created_at_ms=first.at_ms,
        expires_at_ms=first.expires_at_ms,
        ended_at_ms=None,
        reference=None,
        reason=None,
        reacquired=False,
        metadata=(first.details or {}).get("metadata"),
        partition=first.partition,
        epoch=first.epoch,
        seq=first.seq,
    )


def _lines_of(made: Entry) -> tuple[HoldLine, ...]:
    granted = (made.details or {}).get("lines")
    if granted:  # a partial hold: what was asked for stands beside what was there
        return tuple(HoldLine(sku, pool, quantity, 0, 0, requested) for sku, pool, quantity, requested in granted)
    return tuple(HoldLine(change.sku, change.pool, change.held) for change in made.changes)


def hold_after(hold: Hold, entry: Entry) -> Hold:
    """The hold after one more entry of its own. Raises ValueError for an entry that is none."""
    hold = hold._replace(epoch=entry.epoch, seq=entry.seq)
    match entry.kind:
        case "extend":
            return hold._replace(expires_at_ms=entry.expires_at_ms or hold.expires_at_ms)
        case "amend":
            lines = (entry.details or {})["lines"]
            return hold._replace(lines=tuple(HoldLine(sku, pool, quantity) for sku, pool, quantity in lines))
        case "commit":
            return hold._replace(
                state=HoldState.COMMITTED,
                lines=_committed(hold.lines, entry),
                ended_at_ms=entry.at_ms,
                reference=entry.reference,
                reason=None,
                reacquired=bool((entry.details or {}).get("reacquired")),
            )
        case "release":
            lines = tuple(line._replace(released=line.quantity) for line in hold.lines)
            return hold._replace(state=HoldState.RELEASED, lines=lines, ended_at_ms=entry.at_ms, reason=entry.reason)
        case "expire":
            return hold._replace(state=HoldState.EXPIRED, ended_at_ms=entry.at_ms)
        case _:
            raise ValueError(f"entry {entry.epoch}/{entry.seq} ({entry.kind}) is none of a hold's own")


def _committed(lines: tuple[HoldLine, ...], entry: Entry) -> tuple[HoldLine, ...]:
    """What a commit took of each line; the earlier lines of a pool are filled first, as the scripts do."""
    left: dict[tuple[str, str], int] = defaultdict(int)
    for change in entry.changes:
        left[change.sku, change.pool] += change.committed
    closed = []
    for line in lines:
        taken = min(line.quantity, left[line.sku, line.pool])
        left[line.sku, line.pool] -= taken
        closed.append(line._replace(committed=taken, released=line.quantity - taken))
    return tuple(closed)
