"""Proves that Redis' counters, the fold of all entries and the ledger's balances are the same, and the chain unbroken;
then, page by page, that Redis has the records, deadlines and buyers' shares that the ledger knows, and no others.

The counters are read at one instant; the ledger is then folded up to that very place. Pages are no one instant, so what
differs there is looked at again (see records_check). So it can run while selling goes on, and no script runs long.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from flashhold.domain.entries import BUCKETS, Batch
from flashhold.domain.errors import LedgerConflict, LedgerUnavailable
from flashhold.engine.engine import Engine, Snapshot
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.proof import Proof, proof_of
from flashhold.ledger.revival import place_of, revival_on
from flashhold.ledger.rows import Row, entry_row, posting_rows
from flashhold.ledger.tables import ENTRIES, POSTINGS
from flashhold.ledger.writer import GENESIS, Cursor
from flashhold.services.counters_check import garbage_differences, pool_differences, rule_differences
from flashhold.services.follow import check_follows, cursor_after, decoded
from flashhold.services.records_check import QUEUES, Difference, RecordsCheck, Suspect
from flashhold.services.shares_check import share_differences

PATIENCE_S = 30.0
"""How long the ledger may take to reach the store's place: longer than a worker's restart and its lease."""
REST_MAX_S = 0.005
"""Behind each call to the store: the next is half a millisecond of its time at most."""
KEPT_MAX = 100
"""Differences that are listed; all are counted."""

PAGE_HOLDS = 5_000
"""That are asked of the ledger at a time: what a question costs beside its rows is then little."""
MARGIN_MS = 600_000
"""What is about to be forgotten is left out: it may be gone before the ledger's word for it has been compared."""
OF_THE_STORE = frozenset({"store", "policy", "garbage", "number"})
"""Findings that speak against the store alone. With any other the ledger is no measure for its records."""


@dataclass
class Report:
    """The audit's verdict on one partition."""

    partition: str
    epoch: int = 0
    seq: int = 0
    entries: int = 0
    batches: int = 0
    pools: int = 0
    holds: int = 0
    """Whose records were compared: live ones, and those that ended within the time for which keys are kept."""
    seconds: float = 0.0
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.difference_count

    def add(self, what: str, where: str, expected: object, found: object) -> None:
        """Note a difference; only the first of them are kept in words."""
        self.difference_count += 1
        if len(self.differences) < KEPT_MAX:
            self.differences.append(Difference(what, where, str(expected), str(found)))

    def add_all(self, differences: Iterable[Difference]) -> None:
        for difference in differences:
            self.add(*difference)

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "clean": self.clean,
            "partition": self.partition,
            "epoch": self.epoch,
            "seq": self.seq,
            "entries": self.entries,
            "batches": self.batches,
            "pools": self.pools,
            "holds": self.holds,
            "seconds": round(self.seconds, 3),
            "difference_count": self.difference_count,
            "differences": [difference._asdict() for difference in self.differences],
        }


async def audit(engine: Engine, database_url: str, *, patience_s: float = PATIENCE_S) -> Report:
    """Audit the engine's partition. Raises `StoreUnavailable`, `Recovering`, `LedgerUnavailable`."""
    began = time.monotonic()
    before = await asyncio.to_thread(_cursor, database_url, engine.partition)
    snapshot = await engine.snapshot()
    await _reached(database_url, engine.partition, snapshot.place.seq, patience_s)
    report = await asyncio.to_thread(_prove, database_url, engine.partition, before, snapshot)
    if {difference.what for difference in report.differences} <= OF_THE_STORE:
        await _prove_records(report, engine, database_url, snapshot, patience_s)
    report.seconds = time.monotonic() - began
    return report


def _cursor(database_url: str, partition: str) -> Cursor | None:
    with proof_of(database_url, partition) as proof:
        return proof.cursor()


async def _reached(database_url: str, partition: str, seq: int, patience_s: float) -> bool:
    """Wait for the write-behind. That it never came is for the comparison to say."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        cursor = await asyncio.to_thread(_cursor, database_url, partition)
        if cursor is not None and cursor.seq >= seq:
            return True
        await asyncio.sleep(min(0.2, patience_s))
    return False


def _prove(database_url: str, partition: str, before: Cursor | None, snapshot: Snapshot) -> Report:
    place = snapshot.place
    report = Report(partition, place.epoch, place.seq)
    with proof_of(database_url, partition) as proof:
        end = proof.cursor()
        if end is None:
            raise LedgerUnavailable("the ledger knows nothing of this partition: no worker has run yet")
        if before is not None and before.seq > place.seq:
            report.add("place", "store", f"at least {before.epoch}/{before.seq}", f"{place.epoch}/{place.seq}")
        if end.seq < place.seq:
            report.add("place", "ledger", f"at least {place.epoch}/{place.seq}", f"{end.epoch}/{end.seq}")
        _prove_chain(report, proof, end, snapshot)
        _prove_counters(report, proof, snapshot)
        _prove_holds(report, proof)
        for epoch, seq, sku, total in proof.unbalanced(KEPT_MAX):
            report.add("conservation", f"entry {epoch}/{seq}, {sku}", 0, total)
    return report


def _prove_chain(report: Report, proof: Proof, end: Cursor, snapshot: Snapshot) -> None:
    """Every batch follows the one before, hashes to its head, and says what the rows say."""
    here = Cursor(1, 0, GENESIS, "")
    postings = 0
    chain_at_place = GENESIS if snapshot.place.seq == 0 else None
    for together in proof.batches():
        for batch in together:
            try:
                check_follows(here, batch)
            except LedgerConflict as conflict:
                report.add("chain", f"batch {batch.epoch}/{batch.first_seq}", "the batch that follows", conflict)
            here = cursor_after(batch)
            if here.seq == snapshot.place.seq:
                chain_at_place = here.chain
            report.batches += 1
            report.entries += batch.count
        postings += _prove_rows(report, proof, together)
    if (here.epoch, here.seq, here.chain) != (end.epoch, end.seq, end.chain):
        report.add("chain", "cursor", f"{here.epoch}/{here.seq} {here.chain}", f"{end.epoch}/{end.seq} {end.chain}")
    if end.seq >= snapshot.place.seq and chain_at_place != snapshot.place.chain:
        place = f"{snapshot.place.epoch}/{snapshot.place.seq}"
        report.add("chain", f"store at {place}", chain_at_place or "the end of a batch", snapshot.place.chain)
    for table, counted, rows in zip(("entries", "postings"), (report.entries, postings), proof.counts(), strict=True):
        if counted != rows:
            report.add("rows", table, f"{counted} in the batches", f"{rows} rows")


def _prove_rows(report: Report, proof: Proof, batches: list[Batch]) -> int:
    """What was hashed is what the tables hold; the number of postings that were hashed."""
    postings = 0
    for epoch in sorted({batch.epoch for batch in batches}):
        some = [batch for batch in batches if batch.epoch == epoch]
        first, last = some[0].first_seq, some[-1].first_seq + some[-1].count - 1
        entries, moved = [], []
        for batch in some:
            try:
                for entry in decoded(batch):
                    entries.append(entry_row(entry, batch.first_seq))
                    moved += posting_rows(entry)
            except LedgerConflict as conflict:
                report.add("payload", f"batch {epoch}/{batch.first_seq}", "readable", conflict)
        postings += len(moved)
        for what, table, hashed, kept in (
            ("entry", ENTRIES, entries, proof.entry_rows(epoch, first, last)),
            ("posting", POSTINGS, moved, proof.posting_rows(epoch, first, last)),
        ):
            if hashed != kept:
                key = len(table.primary_key.columns)
                for where, expected, found in _unlike(hashed, kept, key, [column.name for column in table.columns]):
                    report.add(what, where, expected, found)
    return postings


def _unlike(hashed: list[Row], kept: list[Row], key: int, names: list[str]) -> Iterator[tuple[str, object, object]]:
    """Where two lists of rows differ, member by member."""
    expected = {_key(row, key): row for row in hashed}
    found = {_key(row, key): row for row in kept}
    for place in sorted(expected.keys() | found.keys()):
        where = "/".join(map(str, place[1:]))
        if place not in found:
            yield where, "a row", "none"
        elif place not in expected:
            yield where, "no row", "one"
        else:
            for name, should, does in zip_longest(names, expected[place], found[place]):
                if should != does:
                    yield f"{where}, {name}", should, does


def _key(row: Row, key: int) -> Row:
    """Both tables begin with partition, epoch and seq, postings go on with the step."""
    return row[:key]


def _prove_counters(report: Report, proof: Proof, snapshot: Snapshot) -> None:
    """Store = fold up to the store's place; balances = fold up to the ledger's end."""
    place = snapshot.place
    folds, balances = proof.folds(place.epoch, place.seq), proof.balances()
    stored = {(pool.sku, pool.pool): pool for pool in snapshot.pools}
    report.pools = len(stored)
    nothing = (0,) * len(BUCKETS)
    report.add_all(garbage_differences(snapshot))
    for pool in sorted(stored.keys() | folds.keys()):
        report.add_all(pool_differences(pool, stored.get(pool), folds[pool].then if pool in folds else nothing))
    report.add_all(rule_differences(snapshot, proof.policies(place.epoch, place.seq)))
    for pool in sorted(folds.keys() | balances.keys()):
        now = folds[pool].now if pool in folds else nothing
        for name, expected, found in zip(BUCKETS, now, balances.get(pool, nothing), strict=True):
            if expected != found:
                report.add("balance", f"{pool[0]}, pool {pool[1]}, {name}", expected, found)


def _prove_holds(report: Report, proof: Proof) -> None:
    """Holds stand as their entries leave them, and their lives are whole."""
    for hold_seq, kept, folded in proof.holds_adrift(KEPT_MAX):
        report.add("hold", f"made at {hold_seq}", folded or "no hold", kept or "none")
    for epoch, seq, kind, earlier in proof.lives_broken(KEPT_MAX):
        report.add("life", f"entry {epoch}/{seq}", f"what may follow {earlier or 'nothing'}", kind)


async def _prove_records(
    report: Report, engine: Engine, database_url: str, snapshot: Snapshot, patience_s: float
) -> None:
    """The store has what the ledger has: records, deadlines, remembered keys, shares; and no live hold besides."""
    ledger = connect_sync(database_url, name="audit", statement_timeout_ms=0)
    retention_ms = engine.retention_ms - min(MARGIN_MS, engine.retention_ms // 4)
    check = RecordsCheck(engine, ledger, retention_ms=retention_ms, rest=_rest)
    check.now_ms = snapshot.place.clock_ms

    async def reached(seq: int) -> bool:
        cursor, _ = await asyncio.to_thread(place_of, ledger, engine.partition)
        return cursor.seq >= seq or await _reached(database_url, engine.partition, seq, patience_s)

    async def judge(
        suspects: Sequence[Suspect], confirm: Callable[[Sequence[Suspect]], Awaitable[list[Difference]]]
    ) -> None:
        if suspects and await reached(max(one.seen[1] for one in suspects)):
            report.add_all(await confirm(suspects))

    try:
        last_seq = 0
        while True:
            page = await check.page(last_seq, PAGE_HOLDS)
            report.holds += page.holds
            await judge(page.suspects, check.confirmed)
            if not page.last_seq or page.last_seq >= snapshot.place.seq:
                break  # what was made since is another audit's: a busy shop makes more for ever
            last_seq = page.last_seq
        keys = await asyncio.to_thread(_remembered, ledger, engine.partition, retention_ms, check.now_ms)
        for at in range(0, len(keys), PAGE_HOLDS):
            await judge(await check.answers(keys[at : at + PAGE_HOLDS]), check.confirmed)
        for queue in QUEUES:
            behind, items = 0, 1
            while items:
                items, suspects = await check.queue(queue, behind)
                await judge(suspects, check.confirmed)
                behind += items
        cursor, live = "", list[Suspect]()
        while cursor != "0":
            cursor, suspects = await check.unknown(cursor or "0")
            live += suspects
            if len(live) >= PAGE_HOLDS or cursor == "0":
                await judge(live, check.unknown_still)
                live = []
        report.add_all(await share_differences(engine, ledger, reached))
    finally:
        await asyncio.to_thread(ledger.dispose)


async def _rest(spent_s: float) -> None:
    """A fifth of the store's time while somebody waits for the verdict; on a busy machine most of what it took was
    waiting, and that is not waited for again."""
    await asyncio.sleep(min(4 * spent_s, REST_MAX_S))


def _remembered(ledger: Any, partition: str, retention_ms: int, now_ms: int) -> list[str]:
    """Keys of movements and policies that the store must remember."""
    with revival_on(ledger, partition, retention_ms=retention_ms, now_ms=now_ms) as revival:
        return [answer.key for answer in revival.answers()]
