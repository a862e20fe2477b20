"""What the checker holds a history against: the ledger as it is in Postgres, and the store's counters."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from flashhold.domain.entries import BUCKETS, Batch, Entry, PoolChange
from flashhold.engine.address import blocking_client
from flashhold.engine.engine import Engine
from flashhold.engine.keys import partition_keys
from flashhold.engine.options import EngineOptions
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.tables import BALANCES, BATCHES, ENTRIES, POSTINGS

Pool = tuple[str, str]
Place = tuple[int, int]
"""(epoch, seq) in a partition."""


Named = tuple[int, str]
"""A deadline (ms) and what names a hold in the deadline index."""


class LedgerView(NamedTuple):
    """Entries by partition, epoch, seq. `balances` ((partition, sku, pool) → a figure a bucket) and `batches` are None
    where only entries are known; then what they would say is not checked."""

    entries: list[Entry]
    balances: dict[tuple[str, str, str], tuple[int, ...]] | None = None
    batches: list[Batch] | None = None


class StoreView(NamedTuple):
    """One partition's counters: (sku, pool) → (available, held, committed, damaged, in_transit, safety_stock,
    oversell_allowance). `named`: how often the deadline index names a hold at a deadline, once a pool of its;
    `clock_ms`: the store's clock."""

    partition: str
    place: Place
    pools: dict[Pool, tuple[int, ...]]
    named: Counter[Named] | None = None
    clock_ms: int = 0


def read_ledger(database_url: str) -> LedgerView:
    """All of the ledger at one instant, by plain reads of its tables and nothing of the product's own reader."""
    engine = connect_sync(database_url, name="checker", statement_timeout_ms=0)
    columns = [ENTRIES.c[name] for name in Entry._fields if name not in ("changes", "chain")]
    place = ("partition", "epoch", "seq")
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            changes: dict[tuple[str, int, int], list[PoolChange]] = {}
            order = [POSTINGS.c[name] for name in (*place, "step")]
            moved = [POSTINGS.c[name] for name in PoolChange._fields]
            posting: Any
            for posting in connection.execute(sa.select(*order[:3], *moved).order_by(*order)):
                changes.setdefault((posting[0], posting[1], posting[2]), []).append(PoolChange(*posting[3:]))
            batches = _batches(connection)
            chains = {(b.partition, b.epoch, b.first_seq): b.chain for b in batches}
            entries = []
            head: Any
            query = sa.select(ENTRIES.c.batch_seq, *columns).order_by(*[ENTRIES.c[name] for name in place])
            for head in connection.execute(query):
                batch_seq, *members = head
                key = (head.partition, head.epoch, head.seq)
                members.insert(-1, tuple(changes.pop(key, ())))
                members.append(chains.get((head.partition, head.epoch, batch_seq), ""))
                entries.append(Entry(*members))
            if changes:
                raise ValueError(f"postings without an entry, e.g. at {next(iter(changes))}")
            rows: Any = connection.execute(sa.select(BALANCES))
            balances = {(r.partition, r.sku, r.pool): tuple(getattr(r, bucket) for bucket in BUCKETS) for r in rows}
    finally:
        engine.dispose()
    return LedgerView(entries, balances, batches)


def _batches(connection: sa.Connection) -> list[Batch]:
    names = [name for name in Batch._fields if name != "stream_id"]
    query = sa.select(*[BATCHES.c[name] for name in names])
    rows: Any = connection.execute(query.order_by(BATCHES.c.partition, BATCHES.c.epoch, BATCHES.c.first_seq))
    return [Batch(r[0], "ledger", r[1], r[2], r[3], r[4], r[5], bytes(r[6])) for r in rows]


async def read_store(url: str, options: EngineOptions | None = None) -> StoreView:
    """The store's counters and deadlines; for a comparison with the ledger it must be quiet."""
    async with await Engine.connect(url, options=options) as engine:
        snapshot = await engine.snapshot()
    place = snapshot.place
    with blocking_client(url, place.partition) as store:
        members: Any = store.zrange(partition_keys(place.partition).due, 0, -1)
    pools: dict[Pool, tuple[int, ...]] = {
        (p.sku, p.pool): (
            p.available, p.held, p.committed, p.damaged, p.in_transit, p.safety_stock, p.oversell_allowance,
        )
        for p in snapshot.pools
    }  # fmt: skip
    return StoreView(place.partition, (place.epoch, place.seq), pools, _named(members), place.clock_ms)


def _named(members: Iterable[bytes]) -> Counter[Named]:
    """A member: its pool's number (4 bytes), the deadline (6), digests of holds (14 each)."""
    return Counter(
        (int.from_bytes(member[4:10], "big"), member[at : at + 14].decode())
        for member in members
        for at in range(10, len(member), 14)
    )


def name_of(hold: str) -> str:
    """What names this hold in the deadline index: the digest of its key, which its id has after the partition's."""
    return hold[6:20]
