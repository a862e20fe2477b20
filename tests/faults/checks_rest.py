"""Everything at rest: store's counters, the fold of the ledger and its balances are one; the chain holds."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from flashhold.domain.entries import Entry
from flashhold.engine.journal import GENESIS_CHAIN, decode_batch
from tests.faults.books import Books
from tests.faults.verdict import Verdict
from tests.faults.views import LedgerView, StoreView, name_of

_SWEPT_WITHIN_MS = 10_000
"""A hold that ended early may stay named until its deadline, and this long after it."""


def check_store(books: Books, store: StoreView, verdict: Verdict) -> None:
    """The store stands where the ledger ends, and every pool counts what the entries add up to."""
    verdict.checked["pools"] += len(store.pools)
    place, end = store.place, books.place
    if not (place == end or (place[0] > end[0] and place[1] == end[1])):
        verdict.add("store-place", books.partition, f"store {place}, ledger {end}")
    for pool in sorted({*store.pools, *books.pools}):
        book = books.pool(pool)
        folded = (*book.buckets[1:], book.safety_stock, book.oversell_allowance)
        stored = store.pools.get(pool)
        if stored != folded and not (stored is None and not any(folded)):
            verdict.add("counter-drift", f"{pool[0]}, {pool[1]}", f"store {stored}, ledger {folded}")
    _check_deadlines(books, store, verdict)


def _check_deadlines(books: Books, store: StoreView, verdict: Verdict) -> None:
    """Every live hold is named at its deadline, once a pool; whatever else is named was to end later than now."""
    if store.named is None:
        return
    live = [claim for claim in books.claims.values() if claim.state == "held"]
    meant = Counter({(claim.expires_ms, name_of(claim.id)): 0 for claim in live})
    for claim in live:
        meant[claim.expires_ms, name_of(claim.id)] += len(claim.units)
    for (deadline, name), missing in (meant - store.named).items():
        verdict.add("index-drift", name, f"live until {deadline}, not named for {missing} pools")
    for deadline, name in store.named - meant:
        if deadline < store.clock_ms - _SWEPT_WITHIN_MS:
            verdict.add("index-drift", name, f"still named at {deadline}, {store.clock_ms - deadline} ms ago")


def check_balances(books: Books, ledger: LedgerView, verdict: Verdict) -> None:
    """The balances that the ledger keeps are what its entries add up to."""
    if ledger.balances is None:
        return
    kept = {(sku, pool): units for (name, sku, pool), units in ledger.balances.items() if name == books.partition}
    for pool in sorted({*kept, *books.pools}):
        folded, stands = tuple(books.pool(pool).buckets), kept.get(pool)
        if stands != folded and not (stands is None and not any(folded)):
            verdict.add("balance-drift", f"{pool[0]}, {pool[1]}", f"kept {stands}, folded {folded}")


def check_batches(ledger: LedgerView, verdict: Verdict) -> None:
    """The batches follow each other, each head is the hash that the design names, and the rows are what they say."""
    if ledger.batches is None:
        return
    entries = iter(ledger.entries)
    heads: dict[str, str] = {}
    for batch in ledger.batches:
        verdict.checked["batches"] += 1
        where = f"{batch.partition} {batch.epoch}/{batch.first_seq}"
        rows = list(islice(entries, batch.count))
        payload = hashlib.sha1(batch.payload, usedforsecurity=False).hexdigest()
        before = heads.get(batch.partition, GENESIS_CHAIN)
        link = f"{before}:{batch.epoch}:{batch.first_seq}:{batch.count}:{batch.at_ms}:{payload}"
        head = hashlib.sha1(link.encode(), usedforsecurity=False).hexdigest()
        if head != batch.chain:
            verdict.add("chain-broken", where, f"head {batch.chain}, computed {head}")
        heads[batch.partition] = batch.chain
        try:
            journalled = decode_batch(batch)
        except (ValueError, TypeError) as error:
            verdict.add("rows-differ", where, f"its payload cannot be read: {error}")
            continue
        for row, said in _differing(rows, journalled):
            verdict.add("rows-differ", where, f"row {row}, journal {said}")
            break


def _differing(rows: list[Entry], journalled: list[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    for at in range(max(len(rows), len(journalled))):
        row = rows[at] if at < len(rows) else None
        said = journalled[at] if at < len(journalled) else None
        if row != said:
            yield row, said
