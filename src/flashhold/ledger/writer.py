"""Writes the ledger: one writer a partition, fenced in the database, every group of batches in one transaction.

`partitions` holds the cursor and the fence in one row. Every transaction first moves that row, and only from the
place and under the fence that the writer believes in; so two writers can never both add the same entries, a
writer that was overtaken adds nothing, and no row needs `ON CONFLICT`, which would hide a fork.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg.types.json import set_json_dumps
from sqlalchemy import text

from flashhold.domain.entries import Batch
from flashhold.domain.errors import FlashHoldError, LedgerConflict
from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.rows import Row, Rows

GENESIS = "0" * 40
"""The chain before the first entry."""

_TYPES = {
    "batches": "text int4 int8 int4 int8 text bytea",
    "entries": "text int4 int8 int8 int8 text text int8 text text text text text int8 int8 jsonb",
    "postings": "text int4 int8 int2 text text int8 int8 int8 int8 int8 int8",
    "holds": "text int8 int4 text text int8 int4 int8",
}

# Looked for first: an insert alone would wait for whoever is moving the row, even if it then did nothing.
_FIRST = text("""
    INSERT INTO partitions
    SELECT :partition, 1, 0, :genesis, '0-0', 0, NULL, '-infinity', NULL, to_timestamp(0)
     WHERE NOT EXISTS (SELECT FROM partitions WHERE partition = :partition)
    ON CONFLICT DO NOTHING""")

_CLAIM = text("""
    UPDATE partitions
       SET fence = fence + 1, holder = :holder,
           lease_until = clock_timestamp() + make_interval(secs => :lease_s)
     WHERE partition = (
           SELECT partition FROM partitions
            WHERE partition = :partition AND (lease_until < clock_timestamp() OR holder = :holder)
              FOR UPDATE SKIP LOCKED)
 RETURNING fence, epoch, seq, chain, stream_id, halted""")

_ADVANCE = text("""
    UPDATE partitions
       SET epoch = :epoch, seq = :seq, chain = :chain, stream_id = :stream_id,
           as_of = to_timestamp(:at_ms / 1000.0),
           lease_until = clock_timestamp() + make_interval(secs => :lease_s)
     WHERE partition = :partition AND fence = :fence AND halted IS NULL
       AND epoch = :epoch_before AND seq = :seq_before AND chain = :chain_before""")

_RENEW = text("""
    UPDATE partitions
       SET lease_until = clock_timestamp() + make_interval(secs => :lease_s),
           as_of = greatest(as_of, clock_timestamp())
     WHERE partition = :partition AND fence = :fence AND seq = :seq AND chain = :chain AND halted IS NULL""")

_CLOSE = text("""
    UPDATE partitions SET halted = :reason WHERE partition = :partition AND epoch = :epoch AND halted IS NULL""")

_STANDING = text("SELECT epoch, seq, chain, stream_id, halted FROM partitions WHERE partition = :partition")

_RESUME = text("""
    UPDATE partitions SET halted = NULL
     WHERE partition = :partition AND halted = :halted AND epoch = :epoch AND seq = :seq AND chain = :chain""")

# CHECKs are tried on a proposed row before its conflict is seen, and a delta alone may be negative; hence no upsert.
_BALANCES = """
    WITH delta AS (
        SELECT * FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
                             %b::bigint[], %b::bigint[])
                      AS d (sku, pool, outside, available, held, committed, damaged, in_transit)
    ), moved AS (
        UPDATE balances b
           SET outside = b.outside + d.outside, available = b.available + d.available, held = b.held + d.held,
               committed = b.committed + d.committed, damaged = b.damaged + d.damaged,
               in_transit = b.in_transit + d.in_transit
          FROM delta d
         WHERE b.partition = %b AND b.sku = d.sku AND b.pool = d.pool
     RETURNING b.sku, b.pool
    )
    INSERT INTO balances
    SELECT %b, d.* FROM delta d
     WHERE NOT EXISTS (SELECT FROM moved m WHERE m.sku = d.sku AND m.pool = d.pool)
     ORDER BY d.sku, d.pool"""

_HOLDS_CHANGED = """
    UPDATE holds h
       SET state = d.state, expires_at_ms = coalesce(d.expires_at_ms, h.expires_at_ms), epoch = d.epoch, seq = d.seq
      FROM unnest(%b::bigint[], %b::text[], %b::bigint[], %b::int[], %b::bigint[])
           AS d (created_seq, state, expires_at_ms, epoch, seq)
     WHERE h.partition = %b AND h.created_seq = d.created_seq"""

_POLICIES = """
    INSERT INTO policies (partition, sku, details, epoch, seq)
    SELECT %b, * FROM unnest(%b::text[], %b::jsonb[], %b::int[], %b::bigint[])
    ON CONFLICT (partition, sku)
    DO UPDATE SET details = excluded.details, epoch = excluded.epoch, seq = excluded.seq"""


class Fenced(FlashHoldError):
    """Another writer has taken the partition over; this one has written nothing and stands by."""


class Cursor(NamedTuple):
    """The place up to which the ledger holds the journal. `stream_id`: where in the stream that place was."""

    epoch: int
    seq: int
    chain: str
    stream_id: str


class Lease(NamedTuple):
    """The right to write a partition until the database's clock has passed the lease, unless renewed by writing."""

    fence: int
    cursor: Cursor
    halted: str | None
    """Why the partition is stopped; a lease on a stopped partition lets nobody write."""


class Standing(NamedTuple):
    """Where a partition stands and, if it is stopped, why."""

    cursor: Cursor
    halted: str | None


class Transaction:
    """The rows of one group on their way in: one method a table, each to be called once, the cursor first."""

    def __init__(self, connection: sa.Connection, partition: str) -> None:
        self._connection = connection
        self._partition = partition
        driver = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            raise TypeError("the ledger writer needs the synchronous psycopg driver")
        self._driver: psycopg.Connection[Any] = driver

    def advance(self, lease: Lease, last: Batch, lease_ms: int) -> None:
        """Move the cursor to the end of `last`. Raises `Fenced`."""
        before = lease.cursor
        moved = self._connection.execute(
            _ADVANCE,
            {
                "partition": self._partition,
                "fence": lease.fence,
                "epoch": last.epoch,
                "seq": last.first_seq + last.count - 1,
                "chain": last.chain,
                "at_ms": last.at_ms,
                "stream_id": last.stream_id,
                "epoch_before": before.epoch,
                "seq_before": before.seq,
                "chain_before": before.chain,
                "lease_s": lease_ms / 1000,
            },
        )
        if moved.rowcount != 1:
            raise Fenced

    def write_batches(self, rows: Rows) -> None:
        self._copy("batches", rows.batches)

    def write_entries(self, rows: Rows) -> None:
        self._copy("entries", rows.entries)

    def write_postings(self, rows: Rows) -> None:
        self._copy("postings", rows.postings)

    def write_policies(self, rows: Rows) -> None:
        if not rows.policies:
            return
        details = [msgspec.json.encode(kept[0]).decode() for kept in rows.policies.values()]
        with self._refused():
            self._driver.execute(
                _POLICIES.replace("%b::jsonb[]", "%s::text[]::jsonb[]"),
                (
                    self._partition,
                    list(rows.policies),
                    details,
                    [kept[1] for kept in rows.policies.values()],
                    [kept[2] for kept in rows.policies.values()],
                ),
            )

    def write_holds(self, rows: Rows) -> None:
        """Add the holds that began in this group, move the older ones. Raises `LedgerConflict` for an unknown one."""
        self._copy("holds", ((self._partition, seq, *hold) for seq, hold in rows.holds_new.items()))
        if not rows.holds_changed:
            return
        ordered = sorted(rows.holds_changed.items())
        columns = zip(*(hold for _, hold in ordered), strict=True)
        with self._refused():
            moved = self._driver.execute(
                _HOLDS_CHANGED, ([seq for seq, _ in ordered], *map(list, columns), self._partition)
            ).rowcount
        if moved != len(ordered):
            raise LedgerConflict(
                f"{len(ordered) - moved} of {len(ordered)} holds that entries up to {rows.entries[-1][1]}/"
                f"{rows.entries[-1][2]} speak of are not in the ledger"
            )

    def write_balances(self, rows: Rows) -> None:
        if not rows.balances:
            return
        ordered = sorted(rows.balances.items())
        names = ([pool[0] for pool, _ in ordered], [pool[1] for pool, _ in ordered])
        sums = zip(*(sums for _, sums in ordered), strict=True)
        with self._refused():
            self._driver.execute(_BALANCES, (*names, *map(list, sums), self._partition, self._partition))

    def _copy(self, table: str, rows: Iterable[Row]) -> None:
        with (
            self._refused(),
            self._driver.cursor() as cursor,
            cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy,
        ):
            copy.set_types(_TYPES[table].split())
            write = copy.write_row
            for row in rows:
                write(row)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """A value that no column can take is the entry's fault, not the database's: a lone surrogate, a number
        beyond 64 bits, a text where a number belongs."""
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            raise LedgerConflict(f"a value cannot be stored: {error}") from error


WRITES: tuple[tuple[str, Callable[[Transaction, Rows], None]], ...] = (
    ("batches", Transaction.write_batches),
    ("entries", Transaction.write_entries),
    ("postings", Transaction.write_postings),
    ("policies", Transaction.write_policies),
    ("holds", Transaction.write_holds),
    ("balances", Transaction.write_balances),
)
"""All that a group's rows go through, in this order, once its cursor has moved."""


class LedgerWriter:
    """A would-be writer of one partition. `holder` names it among others; `lease_ms`: how long it may be silent
    before another takes over."""

    def __init__(self, database_url: str, partition: str, *, holder: str, lease_ms: int = 15_000) -> None:
        self.partition = partition
        self.holder = holder
        self.lease_ms = lease_ms
        self._engine = connect_sync(database_url, name="writer")
        # Once a connection: the driver makes a class each time, which cost a small transaction most of its time.
        sa.event.listen(self._engine, "connect", lambda driver, _: set_json_dumps(msgspec.json.encode, driver))

    def claim(self) -> Lease | None:
        """Take or renew the lease under a new fence; None: another holds it. Raises `LedgerUnavailable`."""
        with translated(), self._engine.begin() as connection:
            connection.execute(_FIRST, {"partition": self.partition, "genesis": GENESIS})
            row = connection.execute(
                _CLAIM, {"partition": self.partition, "holder": self.holder, "lease_s": self.lease_ms / 1000}
            ).one_or_none()
        if row is None:
            return None
        return Lease(row.fence, Cursor(row.epoch, row.seq, row.chain, row.stream_id), row.halted)

    def renew(self, lease: Lease) -> None:
        """Keep the lease, when the journal has just been found to hold nothing more: the ledger is complete as of now.
        Raises `Fenced` (also when the ledger is no longer at the lease's cursor, or stopped), `LedgerUnavailable`."""
        with translated(), self._engine.begin() as connection:
            renewed = connection.execute(
                _RENEW,
                {
                    "partition": self.partition,
                    "fence": lease.fence,
                    "seq": lease.cursor.seq,
                    "chain": lease.cursor.chain,
                    "lease_s": self.lease_ms / 1000,
                },
            )
        if renewed.rowcount != 1:
            raise Fenced

    def hand_over(self, lease: Lease) -> None:
        """Give the lease back at a clean stop, so that a stand-by need not wait for its end."""
        self._update(lease, "lease_until = '-infinity', holder = NULL")

    def halt(self, lease: Lease, reason: str) -> None:
        """Stop the partition for every writer until `resume`; the first reason stays."""
        self._update(lease, "halted = coalesce(halted, :reason)", reason=reason)

    def close_partition(self, epoch: int, reason: str) -> bool:
        """Stop the partition for whoever writes it, without a lease, if it still is in this epoch and goes on.
        Raises `LedgerUnavailable`."""
        with translated(), self._engine.begin() as connection:
            done = connection.execute(_CLOSE, {"partition": self.partition, "epoch": epoch, "reason": reason})
        return done.rowcount == 1

    def standing(self) -> Standing | None:
        """Where the partition stands; None where nothing was ever written. Raises `LedgerUnavailable`."""
        with translated(), self._engine.begin() as connection:
            row = connection.execute(_STANDING, {"partition": self.partition}).one_or_none()
        return None if row is None else Standing(Cursor(*row[:4]), row.halted)

    def resume(self, seen: Standing) -> bool:
        """Let a stopped partition go on, if it still stands as it was seen when someone looked."""
        with translated(), self._engine.begin() as connection:
            done = connection.execute(
                _RESUME, {"partition": self.partition, "halted": seen.halted, **seen.cursor._asdict()}
            )
        return done.rowcount == 1

    def try_out(self, rows: Rows) -> None:
        """Would the ledger take these rows? Nothing of them stays. Raises `LedgerUnavailable`, `LedgerConflict`."""
        with translated(), self._engine.connect() as connection:  # left without a commit: rolled back
            into = Transaction(connection, self.partition)
            for _, write in WRITES:
                write(into, rows)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All rows of a group or none. Raises `LedgerUnavailable` (also when the end's outcome is unknown: claim
        again to see), `LedgerConflict`."""
        with translated(), self._engine.begin() as connection:
            yield Transaction(connection, self.partition)

    def close(self) -> None:
        self._engine.dispose()

    def _update(self, lease: Lease, assignment: str, **values: str) -> bool:
        with translated(), self._engine.begin() as connection:
            done = connection.execute(
                text(f"UPDATE partitions SET {assignment} WHERE partition = :partition AND fence = :fence"),
                {"partition": self.partition, "fence": lease.fence, **values},
            )
        return done.rowcount == 1
