"""What the ledger knows of the parts of carts over several partitions (domain/carts.py)."""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import text

from flashhold.domain.carts import part_id, part_keys, parts_key_range
from flashhold.domain.idempotency import parse_hold_id
from flashhold.domain.model import Hold, HoldState
from flashhold.ledger.connect import translated
from flashhold.ledger.tables import ENTRIES

PAGE_PARTS = 500

# Of what was ever written as a part only a page is read, in the order of the index that has nothing else in it: a
# planner that believes in few parts would read and sort all of them for each page.
_IN_ORDER = text("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off")

# The id is compared, not only the place: a hold that was lost with its store leaves its seq to another one.
_PARTS = text("""
    WITH page AS MATERIALIZED (
        SELECT idempotency_key, partition, seq, at_ms FROM entries
         WHERE kind = 'hold' AND idempotency_key LIKE 'part of %'
           AND idempotency_key ~>~ :after AND idempotency_key ~<~ :until
         ORDER BY idempotency_key USING ~<~ LIMIT :most)
    SELECT e.idempotency_key AS key, h.state, f.state AS first_state,
           f.state = 'held' AND f.expires_at_ms <= floor(extract(epoch FROM clock_timestamp()) * 1000) AS overdue,
           floor(extract(epoch FROM clock_timestamp()) * 1000) - e.at_ms AS age_ms
      FROM page e
      JOIN holds h ON h.partition = e.partition AND h.created_seq = e.seq
      LEFT JOIN (holds f JOIN entries m ON m.partition = f.partition AND m.epoch = f.created_epoch
                                       AND m.seq = f.created_seq)
        ON f.partition = :partition AND f.created_seq = split_part(e.idempotency_key, ' ', 4)::bigint
       AND m.hold = 'hld_' || substr(:partition, 2) || split_part(e.idempotency_key, ' ', 5)
                    || to_hex(split_part(e.idempotency_key, ' ', 4)::bigint)
     ORDER BY e.idempotency_key USING ~<~""")

_FIRST = text("""
    SELECT m.details->>'metadata' AS metadata, f.state, f.created_epoch, f.expires_at_ms, m.at_ms, x.reference, x.reason
      FROM holds f
      JOIN entries m ON m.partition = f.partition AND m.epoch = f.created_epoch AND m.seq = f.created_seq
      JOIN entries x ON x.partition = f.partition AND x.epoch = f.epoch AND x.seq = f.seq
     WHERE f.partition = :partition AND f.created_seq = :seq AND m.hold = :hold""")


def part_ids(cart: str) -> sa.Select[Any]:
    """The ids of the parts of a cart."""
    key, until = part_keys(cart)
    return sa.select(ENTRIES.c.hold).where(
        ENTRIES.c.kind == sa.literal_column("'hold'"),
        ENTRIES.c.idempotency_key.like(sa.literal_column("'part of %'")),
        ENTRIES.c.idempotency_key.op("~>~", is_comparison=True)(key),
        ENTRIES.c.idempotency_key.op("~<~", is_comparison=True)(until),
    )


class PartRow(NamedTuple):
    """A part as the ledger has it. `first_state`: of its cart's first hold, None where the ledger has none; `overdue`:
    that one is held still, but past its deadline."""

    key: str
    state: str
    first_state: str | None
    overdue: bool | None
    age_ms: int

    @property
    def id(self) -> str:
        return part_id(self.key)

    @property
    def is_left(self) -> bool:
        """Whether it is held though its cart may have ended."""
        return self.state == "held" and (self.first_state != "held" or bool(self.overdue))


def parts_page(engine: sa.Engine, partition: str, after: str | None) -> list[PartRow]:
    """The next parts, in the order of their keys, whose carts' first holds are in this partition. Raises
    `LedgerUnavailable`."""
    first, until = parts_key_range(partition)
    values = {"partition": partition, "after": after or first, "until": until, "most": PAGE_PARTS}
    with translated(), engine.connect() as connection:
        connection.execute(_IN_ORDER)
        return [PartRow(*row) for row in connection.execute(_PARTS, values)]


def first_in_ledger(engine: sa.Engine, hold: str) -> Hold | None:
    """A cart's first hold as the ledger knows it, without its lines, which its cart has anyway; None: it knows none.
    Raises `LedgerUnavailable`."""
    parsed = parse_hold_id(hold)
    if parsed is None:
        return None
    partition, _, seq = parsed
    with translated(), engine.connect() as connection:
        row = connection.execute(_FIRST, {"partition": partition, "seq": seq, "hold": hold}).first()
    if row is None:
        return None
    return Hold(
        hold, HoldState[row.state.upper()], (), None, row.at_ms, row.expires_at_ms, None, row.reference, row.reason,
        False, row.metadata, partition, row.created_epoch, seq,
    )  # fmt: skip
