"""Ledgers and stores that a broken product could leave behind a correct history. Each names how it must be found."""

import sys
from collections import Counter

from flashhold.domain.entries import PoolChange
from tests.faults.spoiling import Corruptions, Spoiler, times
from tests.faults.views import name_of

corruption = Corruptions()


def _acknowledged(s: Spoiler, *kinds: str) -> int:
    keys = {c.invoked.key for c in s.operations if getattr(c.ended, "status", 0) in (200, 201)}
    return s.entry(*kinds, where=lambda e: e.idempotency_key in keys and e.idempotency_key is not None)


# ---- lost and doubled


@corruption("acknowledged-lost")
def an_acknowledged_entry_is_dropped(s: Spoiler) -> None:
    del s.entries[_acknowledged(s)]


@corruption("acknowledged-lost")
def an_acknowledged_entry_is_dropped_and_the_gap_closed(s: Spoiler) -> None:
    at = _acknowledged(s)
    s.move_seqs(at, -1)
    del s.entries[at]


@corruption("acknowledged-lost")
def the_tail_is_missing(s: Spoiler) -> None:
    at = _acknowledged(s)
    gone = s.entries[at]
    s.entries = [
        e for e in s.entries if (e.partition, (e.epoch, e.seq) >= (gone.epoch, gone.seq)) != (gone.partition, True)
    ]


@corruption("seq-gap")
def a_seq_is_skipped(s: Spoiler) -> None:
    s.move_seqs(s.entry(where=lambda e: e.seq > 1), 1)


@corruption("duplicate-effect")
def a_key_takes_effect_twice(s: Spoiler) -> None:
    s.append(s.entries[_acknowledged(s, "receipt")])


@corruption("duplicate-effect")
def a_lost_call_takes_effect_twice(s: Spoiler) -> None:
    told = {op.invoked.key for op in s.operations if getattr(op.ended, "status", 0) in (200, 201)}
    at = s.entry(where=lambda e: e.idempotency_key is not None and e.idempotency_key not in told)
    s.append(s.entries[at])


@corruption("born-twice")
def a_hold_is_made_twice(s: Spoiler) -> None:
    s.append(s.entries[s.entry("hold")])


# ---- content


@corruption("answer-differs")
def more_units_than_acknowledged(s: Spoiler) -> None:
    at = _acknowledged(s, "hold")
    s.change(at, changes=times(s.entries[at], 2), details=None)


@corruption("not-as-asked")
def more_units_than_asked_for(s: Spoiler) -> None:
    at = s.entry("hold", where=lambda e: not (e.details or {}).get("lines"))
    s.change(at, changes=times(s.entries[at], 2))


@corruption("answer-differs")
def another_buyer(s: Spoiler) -> None:
    s.change(_acknowledged(s, "hold"), buyer="nobody")


@corruption("buyer-differs")
def a_hold_changes_hands(s: Spoiler) -> None:
    s.change(s.entry("commit", "release", "expire"), buyer="nobody")


@corruption("answer-differs")
def another_reference(s: Spoiler) -> None:
    s.change(_acknowledged(s, "commit"), reference="nobody's")


@corruption("not-as-asked")
def a_movement_of_another_size(s: Spoiler) -> None:
    at = s.entry("receipt")
    s.change(at, changes=times(s.entries[at], 3))


@corruption("answer-differs")
def another_deadline(s: Spoiler) -> None:
    at = _acknowledged(s, "hold")
    s.change(at, expires_at_ms=(s.entries[at].expires_at_ms or 0) + 5)


@corruption("deadline-differs")
def a_commit_moves_the_deadline(s: Spoiler) -> None:
    at = s.entry("commit", "release", "expire")
    s.change(at, expires_at_ms=(s.entries[at].expires_at_ms or 0) - 1)


# ---- causes


@corruption("no-cause")
def nobody_asked_for_it(s: Spoiler) -> None:
    like = s.entries[s.entry("hold")]
    s.append(like, hold=f"{like.hold}f", idempotency_key="nobody's")


@corruption("no-cause")
def applied_under_another_key(s: Spoiler) -> None:
    s.change(_acknowledged(s), idempotency_key="nobody's")


@corruption("no-cause")
def a_release_without_a_key_that_nobody_sent(s: Spoiler) -> None:
    asked = {(op.invoked.verb, op.invoked.request.get("hold")) for op in s.operations}
    at = s.entry("hold", where=lambda e: ("release", e.hold) not in asked)
    like = s.entries[at]
    s.append(like, kind="release", idempotency_key=None, changes=times(like, -1), details=None)


# ---- lives


@corruption("ended-twice")
def two_commits_of_one_hold(s: Spoiler) -> None:
    like = s.entries[s.entry("commit")]
    s.append(like, idempotency_key=None)


@corruption("ended-twice")
def expired_after_it_was_sold(s: Spoiler) -> None:
    like = s.entries[s.entry("commit")]
    s.append(like, kind="expire", idempotency_key=None, reference=None, changes=times(like, -1), details=None)


@corruption("ended-twice")
def sold_after_it_had_expired_and_not_marked(s: Spoiler) -> None:
    s.change(s.entry("commit", where=lambda e: bool((e.details or {}).get("reacquired"))), details=None)


@corruption("reacquired-alive")
def a_live_hold_is_acquired_again(s: Spoiler) -> None:
    s.change(s.entry("commit", where=lambda e: not e.details), details={"reacquired": True})


@corruption("of-no-hold")
def a_hold_that_was_never_made_is_sold(s: Spoiler) -> None:
    like = s.entries[s.entry("commit")]
    s.append(like, hold=f"{like.hold}f")


@corruption("expired-early")
def expired_a_millisecond_early(s: Spoiler) -> None:
    at = s.entry("expire")
    s.change(at, at_ms=(s.entries[at].expires_at_ms or 0) - 1)


@corruption("changed-late")
def sold_at_its_deadline(s: Spoiler) -> None:
    at = s.entry("commit", "release", where=lambda e: not e.details)
    s.change(at, at_ms=s.entries[at].expires_at_ms)


# ---- order


@corruption("epoch-back")
def an_epoch_is_taken_back(s: Spoiler) -> None:
    last = {e.partition: i for i, e in enumerate(s.entries)}
    at = s.entry(where=lambda e: e.seq > 1 and e != s.entries[last[e.partition]])
    s.change(at, epoch=s.entries[at].epoch + 1)


@corruption("seq-fork")
def a_place_is_issued_twice(s: Spoiler) -> None:
    at = s.entry("hold")
    s.entries.insert(at + 1, s.entries[at]._replace(hold="hld_other", idempotency_key="other", buyer="other"))


@corruption("clock-back")
def the_clock_is_put_back(s: Spoiler) -> None:
    at = s.entry(where=lambda e: e.seq > 20)
    s.change(at, at_ms=s.entries[at].at_ms - 3_600_000)


@corruption("chain-in-batch")
def the_head_changes_within_a_batch(s: Spoiler) -> None:
    chains = [e.chain for e in s.entries]
    inner = [i for i in range(1, len(chains) - 1) if chains[i - 1] == chains[i] == chains[i + 1]]
    s.change(int(s.choose(inner, "a batch of three")), chain="f" * 40)


# ---- units


@corruption("not-zero-sum")
def units_out_of_nowhere(s: Spoiler) -> None:
    at = s.entry("hold", "receipt", "commit", "expire", where=lambda e: bool(e.changes))
    first, *rest = s.entries[at].changes
    s.change(at, changes=(first._replace(available=first.available + 1), *rest))


@corruption("units-not-returned")
def a_release_loses_its_units(s: Spoiler) -> None:
    s.change(s.entry("release"), changes=())


@corruption("units-not-returned")
def an_expired_holds_units_are_not_given_back(s: Spoiler) -> None:
    s.change(s.entry("expire"), changes=())


@corruption("wrong-postings")
def a_hold_takes_units_that_are_sold(s: Spoiler) -> None:
    at = s.entry("hold", where=lambda e: bool(e.changes))
    first, *rest = s.entries[at].changes
    s.change(at, changes=(first._replace(committed=-1, available=first.available + 1), *rest))


@corruption("oversold")
def a_hold_of_what_is_not_there(s: Spoiler) -> None:
    like = s.entries[s.entry("hold")]
    s.append(like, hold=f"{like.hold}f", idempotency_key="oversold", changes=times(like, 10_000))


@corruption("oversold")
def a_hold_of_what_is_not_there_marked_as_a_shortfall(s: Spoiler) -> None:
    like = s.entries[s.entry("hold", where=lambda e: len(e.changes) == 1)]
    first = like.changes[0]
    sellable = s.folded(like.partition, (10**6, 10**12)).pool((first.sku, first.pool)).sellable
    units = max(0, sellable) + 1
    change = PoolChange(first.sku, first.pool, 0, -units, units, 0, 0, 0)
    hold = f"{like.hold}f"
    s.append(like, hold=hold, idempotency_key="oversold", changes=(change,), shortfall=units - sellable)


@corruption("oversold")
def a_shortfall_is_not_marked(s: Spoiler) -> None:
    s.change(s.entry(where=lambda e: bool(e.shortfall)), shortfall=None)


@corruption("shortfall-differs")
def a_shortfall_is_marked_wrongly(s: Spoiler) -> None:
    at = s.entry(where=lambda e: bool(e.shortfall))
    s.change(at, shortfall=(s.entries[at].shortfall or 0) + 1)


@corruption("below-zero")
def more_is_shipped_than_was_sold(s: Spoiler) -> None:
    like = s.entries[s.entry("receipt")]
    first = like.changes[0]
    change = PoolChange(first.sku, first.pool, 9_999, 0, 0, -9_999, 0, 0)
    s.append(like, kind="shipment", idempotency_key="shipped", changes=(change,))


@corruption("limit-exceeded")
def a_buyer_gets_more_than_the_limit(s: Spoiler) -> None:
    policy = s.entries[s.entry("policy", where=lambda e: bool((e.details or {}).get("max_per_buyer")))]
    sku, units = policy.changes[0].sku, (policy.details or {})["max_per_buyer"] + 1
    like = s.entries[s.entry("hold", where=lambda e: e.buyer is not None and e.partition == policy.partition)]
    change = PoolChange(sku, "default", 0, -units, units, 0, 0, 0)
    s.append(like, hold=f"{like.hold}f", idempotency_key="greedy", changes=(change,), buyer="greedy")


@corruption("outside-the-sale")
def sold_before_the_sale_opens(s: Spoiler) -> None:
    at = s.entry("policy", where=lambda e: bool(e.details))
    s.change(at, details={**(s.entries[at].details or {}), "opens_at_ms": 10**14})


# ---- at rest


@corruption("counter-drift")
def a_counter_drifts(s: Spoiler) -> None:
    store = s.stores[0]
    pool = s.choose(sorted(store.pools), "a pool")
    available, *rest = store.pools[pool]
    s.stores[0] = store._replace(pools={**store.pools, pool: (available + 1, *rest)})


@corruption("counter-drift")
def a_counter_is_deleted(s: Spoiler) -> None:
    store = s.stores[0]
    pool = s.choose([pool for pool, units in store.pools.items() if any(units)], "a pool")
    s.stores[0] = store._replace(pools={p: units for p, units in store.pools.items() if p != pool})


@corruption("balance-drift")
def a_balance_drifts(s: Spoiler) -> None:
    where = s.choose(sorted(s.balances), "a balance")
    outside, available, *rest = s.balances[where]
    s.balances[where] = (outside - 1, available + 1, *rest)


@corruption("index-drift")
def a_deadline_is_forgotten(s: Spoiler) -> None:
    store = s.stores[0]
    assert store.named is not None
    claims = s.folded(store.partition, (sys.maxsize, 0)).claims.values()
    live = [(claim.expires_ms, name_of(claim.id)) for claim in claims if claim.state == "held" and claim.units]
    forgotten = s.choose(live, "a live hold")
    s.stores[0] = store._replace(named=store.named - Counter([forgotten]))


@corruption("index-drift")
def a_deadline_outlives_its_hold(s: Spoiler) -> None:
    store = s.stores[0]
    assert store.named is not None
    s.stores[0] = store._replace(named=store.named + Counter([(store.clock_ms - 60_000, "a-hold-that-is-gone")]))


@corruption("store-place")
def the_ledger_is_ahead_of_the_store(s: Spoiler) -> None:
    store = s.stores[0]
    s.stores[0] = store._replace(place=(store.place[0], store.place[1] - 1))


@corruption("rows-differ")
def a_row_is_not_what_the_journal_says(s: Spoiler) -> None:
    if s.batches is None:
        s.choose([], "batches")
    s.change(s.entry(), reason="not the journal's")


@corruption("chain-broken")
def a_byte_of_the_journal_flips(s: Spoiler) -> None:
    if s.batches is None:
        s.choose([], "batches")
    assert s.batches is not None
    at = s.roll.randrange(len(s.batches))
    payload = bytearray(s.batches[at].payload)
    payload[s.roll.randrange(len(payload))] ^= 1
    s.batches[at] = s.batches[at]._replace(payload=bytes(payload))
