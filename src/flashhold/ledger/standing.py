"""The balances and policies of a partition as they were at a place a little way back, for who compares them all the
time: from what is kept, minus the few entries since, and not from a fold of everything."""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import text

from flashhold.domain.entries import BUCKETS
from flashhold.ledger.connect import translated
from flashhold.ledger.tables import PARTITIONS
from flashhold.ledger.writer import Cursor

Pool = tuple[str, str]

_SUMS = ", ".join(f"sum({bucket}) AS {bucket}" for bucket in BUCKETS)
_BEFORE = ", ".join(f"(b.{bucket} - coalesce(s.{bucket}, 0))::bigint" for bucket in BUCKETS)
_BALANCES = text(
    f"""SELECT b.sku, b.pool, {_BEFORE} FROM balances b
          LEFT JOIN (SELECT sku, pool, {_SUMS} FROM postings
                      WHERE partition = :partition AND (epoch, seq) > (:epoch, :seq) GROUP BY sku, pool) s
            ON s.sku = b.sku AND s.pool = b.pool
         WHERE b.partition = :partition"""
)
_POLICIES = text(
    "SELECT sku, details, (epoch, seq) > (:epoch, :seq) AS later FROM policies WHERE partition = :partition"
)


class Standing(NamedTuple):
    """`balances`: units by bucket, in the order of BUCKETS, at the place that was asked for. `policies`: the details of
    each SKU's last policy; None where it is later than the place. `cursor`: where the ledger stands."""

    cursor: Cursor
    balances: dict[Pool, tuple[int, ...]]
    policies: dict[str, dict[str, Any] | None]


def standing_at(engine: sa.Engine, partition: str, epoch: int, seq: int) -> Standing | None:
    """None: the ledger has not come to that place yet, or is of another epoch. Raises `LedgerUnavailable`."""
    columns = [PARTITIONS.c[name] for name in Cursor._fields]
    place = {"partition": partition, "epoch": epoch, "seq": seq}
    with translated(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        row: Any = connection.execute(sa.select(*columns).where(PARTITIONS.c.partition == partition)).first()
        if row is None or row.epoch != epoch or row.seq < seq:
            return None
        balances = {(one[0], one[1]): tuple(one[2:]) for one in connection.execute(_BALANCES, place)}
        policies = {one.sku: None if one.later else one.details for one in connection.execute(_POLICIES, place)}
        return Standing(Cursor(*row), balances, policies)
