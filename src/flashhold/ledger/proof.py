"""What the audit asks of the ledger, at one instant. Every query reads a whole table once, so none has a time limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import text

from flashhold.domain.entries import BUCKETS, Batch
from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.rows import HOLD_STATE_AFTER, Row
from flashhold.ledger.tables import BATCHES, ENTRIES, PARTITIONS, POSTINGS
from flashhold.ledger.writer import Cursor

Pool = tuple[str, str]
Buckets = tuple[int, ...]

_SUMS = ", ".join(f"sum({bucket})::bigint AS {bucket}" for bucket in BUCKETS)
_SUMS_THEN = ", ".join(f"coalesce(sum({bucket}) FILTER (WHERE early), 0)::bigint" for bucket in BUCKETS)
_HOLD_KINDS = ", ".join(f"'{kind}'" for kind in HOLD_STATE_AFTER)
_STATE_AFTER = "CASE e.kind " + " ".join(f"WHEN '{kind}' THEN '{state}'" for kind, state in HOLD_STATE_AFTER.items())


class Fold(NamedTuple):
    """A pool's buckets, added up from all postings: up to the place that was asked for, and up to the ledger's end."""

    then: Buckets
    now: Buckets


class Proof:
    """The ledger of one partition at one instant, whatever is written meanwhile."""

    def __init__(self, connection: sa.Connection, partition: str) -> None:
        self._connection = connection
        self._partition = partition

    def cursor(self) -> Cursor | None:
        """Where the writer says that the ledger is."""
        columns = [PARTITIONS.c[name] for name in Cursor._fields]
        query = sa.select(*columns).where(PARTITIONS.c.partition == self._partition)
        row: Any = self._connection.execute(query).first()
        return None if row is None else Cursor(*row)

    def folds(self, epoch: int, seq: int) -> dict[Pool, Fold]:
        """Every pool's sums. They do not come from `balances`, which they are to prove."""
        rows = self._ask(
            f"""SELECT sku, pool, {_SUMS_THEN}, {_SUMS}
                  FROM (SELECT *, (epoch, seq) <= (:epoch, :seq) AS early FROM postings WHERE partition = :partition) p
                 GROUP BY sku, pool""",
            epoch=epoch,
            seq=seq,
        )
        return {(row[0], row[1]): Fold(tuple(row[2:8]), tuple(row[8:14])) for row in rows}

    def balances(self) -> dict[Pool, Buckets]:
        """Every pool's balance as it is kept."""
        rows = self._ask(f"SELECT sku, pool, {', '.join(BUCKETS)} FROM balances WHERE partition = :partition")
        return {(row[0], row[1]): tuple(row[2:]) for row in rows}

    def policies(self, epoch: int, seq: int) -> dict[str, dict[str, Any]]:
        """Every SKU's policy at the place, from the policy entries."""
        rows = self._ask(
            """SELECT DISTINCT ON (p.sku) p.sku, e.details
                 FROM entries e JOIN postings p USING (partition, epoch, seq)
                WHERE e.partition = :partition AND e.kind = 'policy' AND (e.epoch, e.seq) <= (:epoch, :seq)
                ORDER BY p.sku, e.epoch DESC, e.seq DESC""",
            epoch=epoch,
            seq=seq,
        )
        return {row.sku: row.details for row in rows}

    def unbalanced(self, most: int) -> list[Any]:
        """Entries whose postings do not sum to zero for a SKU: (epoch, seq, sku, sum)."""
        total = " + ".join(f"sum({bucket})" for bucket in BUCKETS)
        return self._ask(
            f"""SELECT epoch, seq, sku, ({total})::bigint AS sum FROM postings WHERE partition = :partition
                 GROUP BY epoch, seq, sku HAVING {total} <> 0 ORDER BY epoch, seq LIMIT :most""",
            most=most,
        )

    def holds_adrift(self, most: int) -> list[Any]:
        """Holds that do not stand as their last entry leaves them: (hold_seq, kept, folded), either may be null."""
        return self._ask(
            f"""SELECT coalesce(e.hold_seq, h.created_seq) AS hold_seq,
                       h.state || ' at ' || h.epoch || '/' || h.seq || ' until ' || h.expires_at_ms AS kept,
                       {_STATE_AFTER} END || ' at ' || e.epoch || '/' || e.seq || ' until ' || e.expires_at_ms AS folded
                  FROM (SELECT * FROM holds WHERE partition = :partition) h
             FULL JOIN (SELECT DISTINCT ON (hold_seq) hold_seq, kind, epoch, seq, expires_at_ms
                          FROM entries WHERE partition = :partition AND kind IN ({_HOLD_KINDS})
                         ORDER BY hold_seq, epoch DESC, seq DESC) e ON e.hold_seq = h.created_seq
                 WHERE (h.state, h.epoch, h.seq, h.expires_at_ms)
                       IS DISTINCT FROM ({_STATE_AFTER} END, e.epoch, e.seq, e.expires_at_ms)
                 ORDER BY 1 LIMIT :most""",
            most=most,
        )

    def lives_broken(self, most: int) -> list[Any]:
        """Entries that the life of their hold does not allow: (epoch, seq, kind, before).

        A hold begins once and ends once, expiry may be followed by a marked re-acquire only, nothing expires early and
        nothing is committed, released or extended late.
        """
        return self._ask(
            f"""SELECT epoch, seq, kind, before FROM (
                    SELECT epoch, seq, kind, at_ms, details,
                           lag(kind) OVER life AS before, lag(expires_at_ms) OVER life AS deadline_ms
                      FROM entries WHERE partition = :partition AND kind IN ({_HOLD_KINDS})
                    WINDOW life AS (PARTITION BY hold_seq ORDER BY epoch, seq)) e
                 WHERE (kind = 'hold') <> (before IS NULL)
                    OR before IN ('commit', 'release')
                    OR (before = 'expire' AND (kind <> 'commit' OR details->>'reacquired' IS DISTINCT FROM 'true'))
                    OR (kind = 'expire' AND at_ms < deadline_ms)
                    OR (kind NOT IN ('hold', 'expire') AND before <> 'expire' AND at_ms >= deadline_ms)
                 ORDER BY epoch, seq LIMIT :most""",
            most=most,
        )

    def batches(self, together: int = 64) -> Iterator[list[Batch]]:
        """All batches in ledger order, so many at a time."""
        place = sa.tuple_(BATCHES.c.epoch, BATCHES.c.first_seq)
        columns = [BATCHES.c[name] for name in Batch._fields if name != "stream_id"]
        query = sa.select(*columns).where(BATCHES.c.partition == self._partition)
        query = query.order_by(BATCHES.c.epoch, BATCHES.c.first_seq).limit(together)
        after: tuple[int, int] | None = None
        while True:
            behind = query if after is None else query.where(place > sa.tuple_(*map(sa.literal, after)))
            rows: Any = self._connection.execute(behind).all()
            if not rows:
                return
            batches = [Batch(row[0], "ledger", row[1], row[2], row[3], row[4], row[5], bytes(row[6])) for row in rows]
            yield batches
            after = batches[-1].epoch, batches[-1].first_seq

    def entry_rows(self, epoch: int, first_seq: int, last_seq: int) -> list[Row]:
        """The rows of `entries` with these seqs."""
        return self._between(ENTRIES, epoch, first_seq, last_seq)

    def posting_rows(self, epoch: int, first_seq: int, last_seq: int) -> list[Row]:
        """The rows of `postings` of the entries with these seqs."""
        return self._between(POSTINGS, epoch, first_seq, last_seq)

    def _between(self, table: sa.Table, epoch: int, first_seq: int, last_seq: int) -> list[Row]:
        query = (
            sa.select(table)
            .where(table.c.partition == self._partition, table.c.epoch == epoch)
            .where(table.c.seq.between(first_seq, last_seq))
            .order_by(*table.primary_key.columns)
        )
        return [tuple(row) for row in self._connection.execute(query)]

    def counts(self) -> tuple[int, int]:
        """Rows of `entries`, and of `postings`."""
        rows = self._ask(
            """SELECT (SELECT count(*) FROM entries WHERE partition = :partition),
                      (SELECT count(*) FROM postings WHERE partition = :partition)"""
        )
        return int(rows[0][0]), int(rows[0][1])

    def _ask(self, sql: str, **values: int) -> list[Any]:
        return list(self._connection.execute(text(sql), {"partition": self._partition, **values}))


@contextmanager
def proof_of(database_url: str, partition: str) -> Iterator[Proof]:
    """The partition's ledger as it is now. Raises `LedgerUnavailable`."""
    engine = connect_sync(database_url, name="audit", statement_timeout_ms=0)
    try:
        with translated(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            yield Proof(connection, partition)
    finally:
        engine.dispose()
