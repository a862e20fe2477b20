"""What buyers hold or have bought of a SKU, added up from the entries: for SKUs that get a limit after sales began."""

import sqlalchemy as sa
from sqlalchemy import text

from flashhold.ledger.connect import translated

_BEING_COUNTED = text(
    """SELECT sku FROM policies WHERE partition = :partition AND (details->>'counted')::integer > 0
        ORDER BY sku LIMIT 100"""
)

# Up to the entry that set the first limit: from then on the store counts by itself. Shipments name no buyer, and
# shipped units stay a buyer's; what a hold gave back has one, and is taken off.
_SHARES = text(
    """WITH first AS (
           SELECT e.epoch, e.seq FROM entries e JOIN postings p USING (partition, epoch, seq)
            WHERE e.partition = :partition AND p.sku = :sku
              AND e.kind = 'policy' AND (e.details->>'counted')::integer > 0
            ORDER BY e.epoch, e.seq LIMIT 1)
       SELECT e.buyer, sum(CASE WHEN e.kind = 'return' THEN -p.available ELSE p.held + p.committed END)::bigint AS units
         FROM postings p JOIN entries e USING (partition, epoch, seq), first
        WHERE p.partition = :partition AND p.sku = :sku AND e.buyer IS NOT NULL
          AND (p.epoch, p.seq) < (first.epoch, first.seq)
        GROUP BY e.buyer HAVING sum(CASE WHEN e.kind = 'return' THEN -p.available ELSE p.held + p.committed END) <> 0
        ORDER BY e.buyer"""
)


def skus_being_counted(engine: sa.Engine, partition: str) -> list[str]:
    """At most 100 SKUs that wait for their buyers' earlier units. Raises `LedgerUnavailable`."""
    with translated(), engine.connect() as connection:
        return list(connection.execute(_BEING_COUNTED, {"partition": partition}).scalars())


def shares_before_limit(engine: sa.Engine, partition: str, sku: str) -> list[tuple[str, int]]:
    """(buyer, units) of before the SKU's first limit, always in the same order. Raises `LedgerUnavailable`."""
    with translated(), engine.connect() as connection:
        rows = connection.execute(_SHARES, {"partition": partition, "sku": sku})
        return [(row.buyer, row.units) for row in rows]
