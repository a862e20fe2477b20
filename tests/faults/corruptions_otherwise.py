"""More ledgers that a broken product could leave behind: entries that are not what was asked for, or not possible."""

import msgspec

from flashhold.domain.entries import MOVEMENT_KINDS
from tests.faults.history import Operation
from tests.faults.spoiling import Corruptions, Spoiler, times

otherwise = Corruptions()


# ---- not what was asked for


@otherwise("not-as-asked")
def another_reason(s: Spoiler) -> None:
    s.change(s.entry("release"), reason="nobody's")


@otherwise("not-as-asked")
def extended_for_longer(s: Spoiler) -> None:
    at = s.entry("extend")
    s.change(at, expires_at_ms=(s.entries[at].expires_at_ms or 0) + 10**9)


@otherwise("deadline-differs")
def extended_backwards(s: Spoiler) -> None:
    at = s.entry("extend")
    s.change(at, expires_at_ms=s.entries[at].at_ms)


@otherwise("not-as-asked")
def amended_to_something_else(s: Spoiler) -> None:
    at = s.entry("amend")
    lines = [[sku, pool, units + 1] for sku, pool, units, *_ in (s.entries[at].details or {})["lines"]]
    s.change(at, details={"lines": lines})


@otherwise("wrong-postings")
def amended_and_the_units_not_moved(s: Spoiler) -> None:
    s.change(s.entry("amend"), changes=())


@otherwise("not-as-asked")
def a_receipt_is_written_as_a_return(s: Spoiler) -> None:
    at = s.entry("receipt")
    s.change(at, reason="another", reference="another")


@otherwise("not-as-asked")
def moved_in_another_pool(s: Spoiler) -> None:
    at = s.entry("receipt", "shipment", "damage")
    first, *rest = s.entries[at].changes
    s.change(at, changes=(first._replace(pool="elsewhere"), *rest))


@otherwise("not-as-asked")
def only_a_part_is_sold(s: Spoiler) -> None:
    at = s.entry("commit", where=lambda e: not e.details and any(c.committed > 1 for c in e.changes))
    changes = [
        c._replace(committed=c.committed - 1, available=c.available + 1) if c.committed > 1 else c
        for c in s.entries[at].changes
    ]
    s.change(at, changes=tuple(changes))


@otherwise("wrong-postings")
def more_is_sold_than_was_held(s: Spoiler) -> None:
    at = s.entry("commit", where=lambda e: not e.details and bool(e.changes))
    first, *rest = s.entries[at].changes
    s.change(at, changes=(first._replace(committed=100 - first.held, available=-100), *rest))


@otherwise("wrong-postings")
def a_shipment_of_what_is_not_sold(s: Spoiler) -> None:
    at = s.entry("shipment")
    first = s.entries[at].changes[0]
    s.change(at, changes=(first._replace(committed=0, available=first.committed),))


@otherwise("wrong-postings")
def an_extension_moves_units(s: Spoiler) -> None:
    at = s.entry("extend")
    s.change(at, changes=tuple(c._replace(available=1, held=-1) for c in s.entries[at].changes))


@otherwise("not-as-asked")
def taken_again_though_nobody_wanted_that(s: Spoiler) -> None:
    at = s.entry("commit", where=lambda e: bool((e.details or {}).get("reacquired")))
    for i, (invoked, ended) in enumerate(s.operations):
        if invoked.verb == "commit" and invoked.request.get("hold") == s.entries[at].hold:
            request = {**invoked.request, "if_expired": "reject"}
            s.operations[i] = Operation(msgspec.structs.replace(invoked, request=request), ended)


@otherwise("not-as-asked")
def more_than_a_partial_hold_asked_for(s: Spoiler) -> None:
    at = s.entry("hold", where=lambda e: bool((e.details or {}).get("lines")))
    s.change(at, changes=times(s.entries[at], 50))


@otherwise("seq-fork")
def a_new_epoch_issues_places_again(s: Spoiler) -> None:
    at = s.entry(where=lambda e: e.seq > 5)
    first = s.entries[at]
    for i in range(at, len(s.entries)):
        if s.entries[i].partition == first.partition:
            s.change(i, epoch=s.entries[i].epoch + 1, seq=s.entries[i].seq - first.seq + 1)


@otherwise("wrong-postings")
def a_hold_of_nothing(s: Spoiler) -> None:
    s.change(s.entry("hold"), changes=())


@otherwise("wrong-postings")
def a_hold_that_gives_units_back(s: Spoiler) -> None:
    at = s.entry("hold")
    s.change(at, changes=times(s.entries[at], -1))


@otherwise("buyer-differs")
def another_buyers_share_is_given_back(s: Spoiler) -> None:
    s.change(s.entry("cancel", "return", where=lambda e: e.hold is not None), buyer="nobody")


@otherwise("deadline-differs")
def born_overdue(s: Spoiler) -> None:
    at = s.entry("hold")
    s.change(at, expires_at_ms=s.entries[at].at_ms)


@otherwise("no-cause")
def a_movement_that_nobody_sent(s: Spoiler) -> None:
    s.append(s.entries[s.entry(*MOVEMENT_KINDS)], idempotency_key="nobody's")


@otherwise("outside-the-sale")
def sold_at_the_instant_of_its_end(s: Spoiler) -> None:
    ruled = {entry.changes[0].sku for entry in s.entries if entry.kind == "policy"}
    at = s.entry("hold", where=lambda e: e.changes[0].sku in ruled)
    sku, at_ms = s.entries[at].changes[0].sku, s.entries[at].at_ms
    for i, entry in enumerate(s.entries):
        if entry.kind == "policy" and entry.changes[0].sku == sku:
            s.change(i, details={**(entry.details or {}), "closes_at_ms": at_ms})
