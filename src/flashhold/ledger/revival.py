"""The ledger of one partition, folded into what its store must hold: read at one instant, page by page.

Postgres finds what still matters (live holds, and what ended or was answered within the time for which keys are
remembered) and puts it in order; only holds that something happened to after they were made are folded here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from sqlalchemy import text

from flashhold.domain.entries import BUCKETS, Entry, PoolChange
from flashhold.domain.errors import LedgerConflict
from flashhold.domain.idempotency import key_digest
from flashhold.domain.model import DEFAULT_POOL, Hold, HoldState, PoolCounters
from flashhold.domain.revival import (
    Ending,
    Forgetting,
    FullLine,
    PolicyAnswer,
    RevivedAnswer,
    RevivedHold,
    RevivedShare,
    RevivedSku,
    WholeLine,
)
from flashhold.ledger import revival_sql as sql
from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.folds import hold_after, made_hold
from flashhold.ledger.rows import HOLD_STATE_AFTER
from flashhold.ledger.tables import PARTITIONS
from flashhold.ledger.writer import GENESIS, Cursor

PAGE_HOLDS = 5_000
NOTHING = Cursor(1, 0, GENESIS, "0-0")
"""Where a ledger stands that knows nothing of a partition."""
_DIGEST = slice(6, 20)
"""Of a hold's id: see `domain.idempotency.hold_id`."""

MadeRow = tuple[Any, ...]
"""A hold's first entry, a row a line: created_epoch, created_seq, seq of the last entry, at_ms, expires_at_ms, hold,
fingerprint, buyer, details, sku, pool, quantity."""

Lines = tuple[WholeLine, ...] | tuple[FullLine, ...]


class HoldsPage(NamedTuple):
    """Some holds, and what the keys of their later verbs were answered. `overdue`: when the records of those answers
    may be forgotten that are older than the time for which keys are remembered, but whose hold is not."""

    holds: list[RevivedHold]
    answers: list[RevivedAnswer]
    overdue: list[Forgetting]


class Revival:
    """The fold of one partition. Make it with `revival_of`; every method reads the same instant.

    `cursor`: up to where the ledger has come; `at_ms`: the time of its last entry, 0 where there is none.
    """

    def __init__(self, connection: sa.Connection, partition: str, retention_ms: int, now_ms: int) -> None:
        self._connection = connection
        self._partition = partition
        self._retention_ms = retention_ms
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection), "the ledger is reached by the synchronous psycopg driver"
        self._driver: psycopg.Connection[Any] = driver
        columns = [PARTITIONS.c[name] for name in Cursor._fields]
        row: Any = connection.execute(sa.select(*columns).where(PARTITIONS.c.partition == partition)).first()
        self.cursor = NOTHING if row is None else Cursor(*row)
        self.at_ms = self._at(self.cursor.seq)[1] if self.cursor.seq else 0
        self._since_ms = max(now_ms, self.at_ms) - retention_ms
        self._held: dict[tuple[str, str], int] = defaultdict(int)

    def pools(self) -> list[PoolCounters]:
        """Every pool, numbered from 1."""
        policies = self._policies()
        sums: dict[tuple[str, str], Any] = {(row[0], row[1]): row[2:] for row in self._ask(sql.BALANCES)}
        past = {(row[0], row[1]): row[2] for row in self._ask(sql.PAST)}
        known = set(sums) | {(sku, DEFAULT_POOL) for sku in policies} | {(sku, DEFAULT_POOL) for sku, _ in sums}
        nothing = (0,) * len(BUCKETS)
        pools = []
        for number, (sku, pool) in enumerate(sorted(known), 1):
            limits = policies.get(sku, {}).get("pools", {}).get(pool, (0, 0))
            _, available, held, committed, damaged, in_transit = sums.get((sku, pool), nothing)
            safety_stock, oversell_allowance = limits
            pools.append(
                PoolCounters(
                    sku, pool, number, available, held, committed, damaged, in_transit, safety_stock,
                    oversell_allowance, past.get((sku, pool), 0),
                )
            )  # fmt: skip
        return pools

    def skus(self, pools: Sequence[PoolCounters]) -> list[RevivedSku]:
        """Every SKU of these pools."""
        policies = self._policies()
        skus = []
        for sku, its in groupby(pools, itemgetter(0)):
            names = sorted((pool.pool for pool in its), key=lambda name: (name != DEFAULT_POOL, name))
            details = policies.get(sku, {})
            skus.append(RevivedSku(sku, details, max(-1, min(1, details.get("counted", 0))), names))
        return skus

    def shares(self, skus: Iterable[RevivedSku]) -> Iterator[RevivedShare]:
        """Units of every buyer of the SKUs that have buyers counted. What was before a SKU's first limit is left out
        while its worker has not added all of it: that is done anew, from the first part."""
        self._orderly(False)
        for sku in skus:
            if sku.counted:
                for row in self._ask(sql.SHARES, sku=sku.sku, all=sku.counted < 0):
                    yield RevivedShare(sku.sku, row[0], row[1])

    def holds(self) -> Iterator[HoldsPage]:
        """All holds that are live or still remembered, in the order in which they were made."""
        self._orderly()
        after = 0
        while True:
            rows = self._made_after(after)
            if not rows:
                return
            after = rows[-1][1]
            yield self._page(rows)

    def holds_after(self, seq: int, most: int) -> tuple[HoldsPage, int]:
        """At most so many of the same, made after `seq`, and the seq of the last of them; 0: there are no more."""
        self._orderly()
        rows = self._made_after(seq, most)
        return self._page(rows), rows[-1][1] if rows else 0

    def holds_at(self, seqs: Sequence[int]) -> HoldsPage:
        """The same of those that these entries made."""
        self._orderly()
        with self._driver.cursor(binary=True) as cursor:
            values = {"partition": self._partition, "seqs": list(seqs), "first_seq": self._since[1]}
            return self._page(cursor.execute(sql.HOLDS_AT, values).fetchall())

    def made(self, seqs: Iterable[int]) -> dict[int, str]:
        """Digests of the holds that these entries made, whatever has become of them."""
        return {row.seq: row.hold[_DIGEST] for row in self._ask(sql.MADE, seqs=list(seqs), epoch=self.cursor.epoch)}

    def answers(self) -> Iterator[RevivedAnswer]:
        """What the keys of movements and policies are remembered to have been answered."""
        self._orderly()
        rows = self._stream(sql.MOVEMENTS)
        for _, steps in groupby(rows, itemgetter(1)):
            entry = _entry(list(steps), self._partition)
            yield RevivedAnswer(entry.idempotency_key or "", entry.fingerprint or "", entry)
        for row in self._stream(sql.POLICY_ANSWERS):
            answer = PolicyAnswer(row.details, row.created, row.epoch, row.seq)
            yield RevivedAnswer(row.idempotency_key, row.fingerprint, answer)

    def queue(self) -> Iterator[Forgetting]:
        """What was to be forgotten when, in order of time."""
        for row in self._stream(sql.QUEUE):
            forget_at_ms = row.at_ms + self._retention_ms
            if row.ended is not None:
                yield Forgetting(row.ended[_DIGEST], forget_at_ms)
            if row.idempotency_key is not None:
                yield Forgetting(key_digest(row.idempotency_key), forget_at_ms)

    def check(self, pools: Iterable[PoolCounters]) -> None:
        """Do the holds that `holds` gave add up to what the pools hold? Raises `LedgerConflict`: such a ledger has to
        be looked at, not to be sold from."""
        for pool in pools:
            held = self._held.pop((pool.sku, pool.pool), 0)
            if held != pool.held:
                raise LedgerConflict(
                    f"the ledger does not add up: SKU {pool.sku!r}, pool {pool.pool!r} has {pool.held} held by its "
                    f"balance, {held} by its holds"
                )
        if any(self._held.values()):
            raise LedgerConflict("the ledger does not add up: a live hold has units of a pool that it does not know")

    def _page(self, rows: list[MadeRow]) -> HoldsPage:
        page = HoldsPage([], [], [])
        touched = {row[1] for row in rows if row[2] != row[1]}
        lives = self._lives(sorted(touched)) if touched else {}
        held = self._held
        for _, its in groupby(rows, itemgetter(1)):
            made = list(its)
            epoch, seq, last_seq, at_ms, expires_ms, hold, mark, buyer, details, *_ = made[0]
            if last_seq != seq or (details is not None and "lines" in details):
                self._fold(made, lives.get(seq, ()), page)
                continue
            # Whole lines, and nothing has happened to it: nearly all of them in a sale.
            lines = tuple([row[9:] for row in made])
            for sku, pool, quantity in lines:
                held[sku, pool] += quantity
            said = details or {}
            page.holds.append(
                RevivedHold(
                    hold[_DIGEST], HoldState.HELD, mark or "", buyer or "", said.get("metadata", ""),
                    said.get("ttl_ms", 0), lines, epoch, at_ms, expires_ms - at_ms,
                    None, None, seq, expires_ms,
                )
            )  # fmt: skip
        return page

    def _fold(self, made: list[MadeRow], later: Iterable[Entry], page: HoldsPage) -> None:
        epoch, seq, _, at_ms, expires_ms, hold_id, mark, buyer, details, *_ = made[0]
        changes = tuple(PoolChange(sku, pool, 0, -quantity, quantity, 0, 0, 0) for *_, sku, pool, quantity in made)
        first = Entry(
            self._partition, epoch, seq, at_ms, "hold", hold_id, None, mark, buyer, expires_ms, None, None, None,
            changes, details, "",
        )  # fmt: skip
        hold = made_hold(first)
        lines = begun = _lines(hold)
        amended = False
        for entry in later:
            if entry.kind not in HOLD_STATE_AFTER:
                lines = _given_back(lines, entry)
                continue
            hold = hold_after(hold, entry)
            amended = amended or entry.kind == "amend"
            lines = _lines(hold)
            if entry.idempotency_key is not None:
                page.answers.append(RevivedAnswer(entry.idempotency_key, entry.fingerprint or "", hold, lines))
                if entry.seq < self._since[1]:
                    page.overdue.append(Forgetting(key_digest(entry.idempotency_key), entry.at_ms + self._retention_ms))
        if hold.state == HoldState.HELD:
            for line in hold.lines:
                self._held[line.sku, line.pool] += line.quantity
        page.holds.append(_revived(first, hold, lines, begun if amended else None))

    def _made_after(self, seq: int, most: int = PAGE_HOLDS) -> list[MadeRow]:
        """A page of `sql.HOLDS`, by the bare driver: SQLAlchemy's rows were a third of a restore's time."""
        with self._driver.cursor(binary=True) as cursor:
            values = {"partition": self._partition, "after": seq, "first_seq": self._since[1], "most": most}
            return cursor.execute(sql.HOLDS, values).fetchall()

    def _lives(self, hold_seqs: list[int]) -> dict[int, list[Entry]]:
        """What happened to these holds after they were made, cancels and returns of their units included."""
        rows = self._ask(sql.LIVES, hold_seqs=hold_seqs)
        lives: dict[int, list[Entry]] = defaultdict(list)
        for (hold_seq, _), steps in groupby(rows, lambda row: (row.hold_seq, row.seq)):
            lives[hold_seq].append(_entry(list(steps), self._partition))
        return lives

    def _policies(self) -> dict[str, dict[str, Any]]:
        return {row.sku: row.details for row in self._ask(sql.POLICIES)}

    def _at(self, seq: int) -> tuple[int, int]:
        """Epoch and time of an entry."""
        rows = self._ask(sql.AT, seq=seq, epoch=self.cursor.epoch)
        if not rows:
            raise LedgerConflict(f"the ledger has no entry {seq}, though its cursor stands at {self.cursor.seq}")
        return int(rows[0][0]), int(rows[0][1])

    @cached_property
    def _since(self) -> tuple[int, int]:
        """Epoch and seq of the first entry that is later than `_since_ms`: time never falls along the ledger, so it is
        looked for by halves. No entry: one beyond the last."""
        since_ms = self._since_ms
        low, high = 1 if since_ms < self.at_ms else self.cursor.seq + 1, self.cursor.seq + 1
        while low < high:
            middle = (low + high) // 2
            if self._at(middle)[1] > since_ms:
                high = middle
            else:
                low = middle + 1
        return (self._at(low)[0] if low <= self.cursor.seq else self.cursor.epoch), low

    def _orderly(self, on: bool = True) -> None:
        for setting, value in sql.ORDERLY.items():
            self._connection.execute(text(f"SET LOCAL {setting} = {value if on else 'DEFAULT'}"))

    def _ask(self, query: str, **values: Any) -> list[Any]:
        return list(self._connection.execute(text(query), {"partition": self._partition, **values}))

    def _stream(self, query: str) -> Iterator[Any]:
        """What is not older than the time for which keys are remembered, a few thousand rows at a time."""
        statement = text(query).execution_options(yield_per=5_000)
        since = {"first_epoch": self._since[0], "first_seq": self._since[1]}
        yield from self._connection.execute(statement, {"partition": self._partition, **since})


def place_of(engine: sa.Engine, partition: str) -> tuple[Cursor, str | None]:
    """Where the ledger stands (at the beginning, where it knows nothing), and why its writer has stopped, if it has.
    Raises `LedgerUnavailable`."""
    columns = [PARTITIONS.c[name] for name in (*Cursor._fields, "halted")]
    with translated(), engine.connect() as connection:
        row: Any = connection.execute(sa.select(*columns).where(PARTITIONS.c.partition == partition)).first()
    return (NOTHING, None) if row is None else (Cursor(*row[:4]), row[4])


@contextmanager
def revival_of(database_url: str, partition: str, *, retention_ms: int, now_ms: int) -> Iterator[Revival]:
    """The fold of the partition's ledger as it is now. `retention_ms`: how long keys are remembered; `now_ms`: the
    store's clock. Raises `LedgerUnavailable`, `LedgerConflict`."""
    engine = connect_sync(database_url, name="restore", statement_timeout_ms=0)
    try:
        with revival_on(engine, partition, retention_ms=retention_ms, now_ms=now_ms) as revival:
            yield revival
    finally:
        engine.dispose()


@contextmanager
def revival_on(engine: sa.Engine, partition: str, *, retention_ms: int, now_ms: int) -> Iterator[Revival]:
    """The same, for who asks again and again."""
    with translated(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        # This reader is no slower than its consumer, which may wait for a store for as long as it likes.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))
        yield Revival(connection, partition, retention_ms, now_ms)


def hold_again(entries: Sequence[Entry]) -> RevivedHold:
    """A hold as all entries that speak of it leave it, cancels and returns included, the one that made it first."""
    first, hold = entries[0], made_hold(entries[0])
    lines = begun = _lines(hold)
    amended = False
    for entry in entries[1:]:
        if entry.kind in HOLD_STATE_AFTER:
            hold = hold_after(hold, entry)
            lines, amended = _lines(hold), amended or entry.kind == "amend"
        else:
            lines = _given_back(lines, entry)
    return _revived(first, hold, lines, begun if amended else None)


def _revived(first: Entry, hold: Hold, lines: Lines, original: Lines | None) -> RevivedHold:
    made_to_end_ms = first.expires_at_ms or 0
    return RevivedHold(
        hold.id[_DIGEST], hold.state, first.fingerprint or "", hold.buyer or "", hold.metadata or "",
        (first.details or {}).get("ttl_ms", 0), lines, first.epoch, first.at_ms, made_to_end_ms - first.at_ms,
        _ending(hold, first), original, first.seq, hold.expires_at_ms,
    )  # fmt: skip


def _entry(steps: list[Any], partition: str) -> Entry:
    """An entry out of its rows, one a posting; the columns are those of `revival_sql.ENTRY`."""
    row = steps[0]
    changes = tuple(PoolChange(*step[15:]) for step in steps if step.sku is not None)
    return Entry(
        partition, row.epoch, row.seq, row.at_ms, row.kind, row.hold, row.idempotency_key, row.fingerprint, row.buyer,
        row.expires_at_ms, row.reference, row.reason, row.shortfall, changes, row.details, row.chain or "",
    )  # fmt: skip


def _lines(hold: Hold) -> Lines:
    """A hold's lines as the store keeps them: short ones where nothing is to be said but what is held."""
    closed = hold.state in (HoldState.COMMITTED, HoldState.RELEASED)
    if not closed and all(line.requested is None for line in hold.lines):
        return tuple((line.sku, line.pool, line.quantity) for line in hold.lines)
    return tuple(
        (line.sku, line.pool, line.quantity, line.committed, line.released, 0,
         False if line.requested is None else line.requested)
        for line in hold.lines
    )  # fmt: skip


def _given_back(lines: Any, entry: Entry) -> Lines:
    """The lines of a sold hold after a cancel or return of its units: earlier lines give first, as in move.lua."""
    change = entry.changes[0]
    left = change.available
    after = []
    for sku, pool, quantity, committed, released, given_back, requested in lines:
        share = min(left, committed - given_back) if (sku, pool) == (change.sku, change.pool) else 0
        left -= share
        after.append((sku, pool, quantity, committed, released, given_back + share, requested))
    return tuple(after)


def _ending(hold: Hold, first: Entry) -> Ending | None:
    if hold.seq == first.seq:
        return None
    return Ending(hold.epoch, hold.seq, hold.ended_at_ms or 0, hold.reference or "", hold.reason or "", hold.reacquired)
