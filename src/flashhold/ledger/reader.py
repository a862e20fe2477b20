"""Reads the ledger for the door: pages of entries and of holds, one hold, the place it has come to, the API keys.

A page is cut in two steps. First the places that belong on it, from whichever index the filter has; then everything
at those places. So no filter makes the planner choose between walking the whole ledger and sorting it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from flashhold.domain import carts
from flashhold.domain.entries import Entry, PoolChange
from flashhold.domain.errors import LedgerUnavailable
from flashhold.domain.idempotency import is_cart, is_part, parse_hold_id
from flashhold.domain.instants import rfc3339
from flashhold.domain.model import Hold
from flashhold.domain.revival import RevivedHold
from flashhold.ledger.connect import connect_async, translated
from flashhold.ledger.folds import fold_hold
from flashhold.ledger.pages import Positions, cursor_of, entry_json, hold_json, positions_of
from flashhold.ledger.parts import part_ids
from flashhold.ledger.revival import hold_again
from flashhold.ledger.rows import HOLD_STATE_AFTER
from flashhold.ledger.tables import API_KEYS, BATCHES, ENTRIES, HOLDS, PARTITIONS, POSTINGS

_E, _P, _H, _B = ENTRIES.c, POSTINGS.c, HOLDS.c, BATCHES.c
_NOW_MS = sa.cast(sa.func.floor(sa.extract("epoch", sa.func.clock_timestamp()) * 1000), sa.BigInteger)

# Written out, not passed beside the statement: only so does the planner see that a partial index will do.
_HOLD: sa.ColumnElement[str] = sa.literal_column("'hold'")
_RESTORE: sa.ColumnElement[str] = sa.literal_column("'restore'")
_AMEND: sa.ColumnElement[str] = sa.literal_column("'amend'")
_HELD: sa.ColumnElement[str] = sa.literal_column("'held'")

Place = tuple[int, int]
Select = sa.Select[Any]


class LedgerPlace(NamedTuple):
    """How far the ledger is with a partition. `halted`: why it goes no further. `installed_at`: when the partition was
    first made in Redis, None where it was not."""

    partition: str
    epoch: int
    seq: int
    chain: str
    halted: str | None
    installed_at: datetime | None = None


class LastRestore(NamedTuple):
    """The latest `restore` entry of a partition; `details` as services/restore.py writes them."""

    epoch: int
    seq: int
    at_ms: int
    reason: str
    details: dict[str, Any]


class ApiKey(NamedTuple):
    """A key that may be used; `hash` is the SHA-256 of its secret."""

    id: str
    hash: bytes
    scopes: list[str]


class Reader:
    """Pages of the ledger. Every method raises `LedgerUnavailable` when Postgres is away or slower than two seconds."""

    def __init__(self, database_url: str, *, pool_size: int = 4) -> None:
        self._engine = connect_async(database_url, pool_size=pool_size).execution_options(
            isolation_level="REPEATABLE READ"  # a page is of one instant, though it takes several statements
        )

    async def close(self) -> None:
        await self._engine.dispose()

    async def place(self, partition: str) -> LedgerPlace | None:
        """How far the ledger is; None where nothing has ever been written."""
        columns = [PARTITIONS.c[name] for name in LedgerPlace._fields]
        with translated():
            async with self._engine.connect() as connection:
                row = (await connection.execute(sa.select(*columns).where(PARTITIONS.c.partition == partition))).first()
        return None if row is None else LedgerPlace(*row)

    async def last_restore(self, partition: str) -> LastRestore | None:
        """When and why the partition's store was last rebuilt; None where it never was."""
        columns = [_E[name] for name in LastRestore._fields]
        query = sa.select(*columns).where(_E.partition == partition, _E.kind == _RESTORE, _E.kind != _HOLD)
        with translated():
            async with self._engine.connect() as connection:
                row = (await connection.execute(query.order_by(_E.epoch.desc(), _E.seq.desc()).limit(1))).first()
        return None if row is None else LastRestore(*row)

    async def api_keys(self) -> list[ApiKey]:
        """All keys that have not been revoked."""
        query = sa.select(API_KEYS.c.id, API_KEYS.c.hash, API_KEYS.c.scopes).where(API_KEYS.c.revoked_at.is_(None))
        with translated():
            async with self._engine.connect() as connection:
                return [ApiKey(*row) for row in await connection.execute(query)]

    async def ledger_page(  # the query's parameters, in the contract's order
        self,
        sku: str | None = None,
        hold: str | None = None,
        kind: str | None = None,
        partition: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """`{items, next_cursor, as_of}`: entries behind the cursor, by partition, epoch, seq. Raises `BadCursor`."""
        positions = positions_of(cursor)
        items: list[dict[str, Any]] = []
        with translated():
            async with self._engine.connect() as connection:
                here, as_of, _ = await _state(connection, partition)
                holds = None if hold is None else [hold]
                if holds and is_cart(holds[0]) and parse_hold_id(holds[0]):
                    holds += list((await connection.execute(part_ids(holds[0]))).scalars())
                for name in here:
                    query = _entry_places(name, sku, holds, kind)
                    if query is None:
                        continue
                    places = await _behind(connection, query, positions.get(name), limit + 1 - len(items))
                    items += [entry_json(entry) for entry in await _entries_at(connection, name, places)]
                    if len(items) > limit:
                        break
        return _page(items, limit, positions, as_of, lambda item: (item["partition"], (item["epoch"], item["seq"])))

    async def holds_page(
        self,
        buyer: str | None = None,
        sku: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """`{items, next_cursor, as_of}`: holds in the order in which they were made. Raises `BadCursor`.

        A page may hold fewer than `limit` and still have a `next_cursor`: holds that have no line of `sku` any more (of
        a buyer's holds: never had) are left out of it. A cart over several partitions stands where its first hold was
        made, and for a `sku` where the hold was made that has its units.
        """
        positions = positions_of(cursor)
        found: list[tuple[str, Place, Hold | None]] = []
        with translated():
            async with self._engine.connect() as connection:
                here, as_of, now_ms = await _state(connection, None)
                for name in here:
                    room = limit + 1 - len(found)
                    sources = _hold_places(name, buyer, sku, state, now_ms)
                    some = [await _behind(connection, source, positions.get(name), room) for source in sources]
                    places = sorted({place for source in some for place in source})[:room]
                    folded: Sequence[Hold | None] = await _holds_at(connection, name, places, now_ms)
                    if any(is_part(hold.id) for hold in folded if hold):
                        folded = [await _cart(connection, hold, sku, now_ms) if hold else None for hold in folded]
                    found += [(name, place, hold) for place, hold in zip(places, folded, strict=True)]
                    if len(found) > limit:
                        break
        page = _page(found, limit, positions, as_of, lambda item: item[:2])
        holds = [hold_json(hold) for _, _, hold in page["items"] if hold is not None]
        page["items"] = [h for h in holds if sku is None or any(line["sku"] == sku for line in h["lines"])]
        return page

    async def hold(self, hold: str) -> dict[str, Any] | None:
        """One hold as the ledger knows it, None where it does not. A part of a cart is shown as the cart."""
        with translated():
            async with self._engine.connect() as connection:
                _, _, now_ms = await _state(connection, None)
                found = await _hold_of(connection, hold, now_ms)
                if found is not None and is_part(found.id):
                    found = await _hold_of(connection, carts.first_of(found), now_ms)
        return None if found is None else hold_json(found)

    async def hold_again(self, hold: str, partition: str, epoch: int, seq: int) -> RevivedHold | None:
        """A hold of the partition as a store that has forgotten it is to have it again; None where the ledger knows
        none of this name there.

        Raises `LedgerUnavailable` while the ledger has not come to the place at which the store did not know the hold:
        until then it may not know all that was given back of it.
        """
        parsed = parse_hold_id(hold)
        if parsed is None or parsed[0] != partition:
            return None
        with translated():
            async with self._engine.connect() as connection:
                at = sa.select(PARTITIONS.c.epoch, PARTITIONS.c.seq).where(PARTITIONS.c.partition == partition)
                row = (await connection.execute(at)).first()
                if row is None or (row.epoch, row.seq) < (epoch, seq):
                    raise LedgerUnavailable("the ledger is behind the store, and the hold is only in the ledger")
                rows = await connection.execute(_places_of_holds(partition, [parsed[2]]))
                entries = await _entries_at(connection, partition, [(row[0], row[1]) for row in rows])
        entries = [entry for entry in entries if entry.hold == hold]
        return hold_again(entries) if entries and entries[0].kind == "hold" else None


async def _state(connection: AsyncConnection, partition: str | None) -> tuple[list[str], str, int]:
    """The partitions to read, the instant until which they are complete, and the time now (ms)."""
    query = sa.select(PARTITIONS.c.partition, PARTITIONS.c.as_of).order_by(PARTITIONS.c.partition)
    if partition is not None:
        query = query.where(PARTITIONS.c.partition == partition)
    rows = (await connection.execute(query)).all()
    now_ms = (await connection.execute(sa.select(_NOW_MS))).scalar_one()
    complete = min((row.as_of.timestamp() for row in rows), default=0.0)
    return [row.partition for row in rows], rfc3339(int(complete * 1000)), now_ms


def _entry_places(partition: str, sku: str | None, holds: Sequence[str] | None, kind: str | None) -> Select | None:
    """The places of the entries that pass the filters; None where none can."""
    if sku is not None:
        query = sa.select(_P.epoch, _P.seq).distinct().where(_P.partition == partition, _P.sku == sku)
        place = (_P.epoch, _P.seq)
        if holds is not None or kind is not None:
            query = query.join(ENTRIES, _same(_E, _P.partition, _P.epoch, _P.seq))
    else:
        query = sa.select(_E.epoch, _E.seq).where(_E.partition == partition)
        place = (_E.epoch, _E.seq)
    if holds is not None:
        seqs = [parsed[2] for parsed in map(parse_hold_id, holds) if parsed is not None and parsed[0] == partition]
        if not seqs:
            return None
        query = query.where(_E.hold.in_(holds), sa.tuple_(*place).in_(_places_of_holds(partition, seqs)))
    if kind is not None:
        query = query.where(_E.kind == sa.bindparam("kind", kind, literal_execute=True))
    return query


def _places_of_holds(partition: str, seqs: Sequence[int]) -> Any:
    """Places of all entries that speak of the holds made at `seqs`: their first by where it was made, the later ones by
    the index that leaves the first ones out."""
    made = sa.select(_H.created_epoch, _H.created_seq).where(_H.partition == partition, _H.created_seq == _any(seqs))
    later = sa.select(_E.epoch, _E.seq).where(
        _E.partition == partition,
        _E.hold_seq == _any(seqs),
        _E.hold_seq.is_not(None),
        _E.kind != _HOLD,
    )
    return made.union_all(later)


def _hold_places(partition: str, buyer: str | None, sku: str | None, state: str | None, now_ms: int) -> list[Select]:
    """The places at which the holds that pass the filters were made, from one or two sources.

    A SKU's holds come from its postings, in their order, so that a page costs what it shows; those that were amended
    to it are looked for among the amendments. A buyer's holds are few, so that with both their lines are looked at.
    """
    made = sa.select(_H.created_epoch, _H.created_seq)
    if sku is None or buyer is not None:
        sources = [made.where(_H.partition == partition)]
    else:
        posted = sa.select(_P.epoch, _P.seq).distinct().where(_P.partition == partition, _P.sku == sku)
        posted = posted.join(ENTRIES, _same(_E, _P.partition, _P.epoch, _P.seq)).where(_E.kind == _HOLD)
        posted = posted.join(HOLDS, sa.and_(_H.partition == _P.partition, _H.created_seq == _P.seq))
        amended = made.distinct().select_from(ENTRIES).join(POSTINGS, _same(_P, _E.partition, _E.epoch, _E.seq))
        amended = amended.join(HOLDS, sa.and_(_H.partition == _E.partition, _H.created_seq == _E.hold_seq))
        amended = amended.where(_E.partition == partition, _E.kind == _AMEND, _P.sku == sku, _P.held > 0)
        sources = [posted, amended]
    if buyer is not None:
        sources = [source.where(_H.buyer == buyer) for source in sources]
    if state is None:
        return sources
    overdue = sa.and_(_H.state == _HELD, _H.expires_at_ms <= now_ms)
    passes = {
        "held": sa.and_(_H.state == _HELD, _H.expires_at_ms > now_ms),
        "expired": sa.or_(_H.state == "expired", overdue),
    }.get(state, _H.state == state)
    return [source.where(passes) for source in sources]


async def _behind(connection: AsyncConnection, query: Select, position: Place | None, count: int) -> list[Place]:
    """The first `count` places of the query behind the position, in order."""
    epoch, seq = list[Any](query.selected_columns)
    if position is not None:
        query = query.where(sa.tuple_(epoch, seq) > sa.tuple_(*map(sa.literal, position)))
    rows: Any = await connection.execute(query.order_by(epoch, seq).limit(count))
    return [(row[0], row[1]) for row in rows]


async def _entries_at(connection: AsyncConnection, partition: str, places: Sequence[Place]) -> list[Entry]:
    """The entries at these places, in ledger order, with the chain of their batches."""
    if not places:
        return []
    wanted = _wanted(places)
    columns = [_E[name] for name in Entry._fields if name not in ("changes", "chain")]
    heads = (
        sa.select(*columns, _B.chain)
        .select_from(wanted)
        .join(ENTRIES, _same(_E, sa.literal(partition), wanted.c.epoch, wanted.c.seq))
        .join(BATCHES, sa.and_(_B.partition == _E.partition, _B.epoch == _E.epoch, _B.first_seq == _E.batch_seq))
        .order_by(_E.epoch, _E.seq)
    )
    moved = (
        sa.select(_P.epoch, _P.seq, *[_P[name] for name in PoolChange._fields])
        .select_from(wanted)
        .join(POSTINGS, _same(_P, sa.literal(partition), wanted.c.epoch, wanted.c.seq))
        .order_by(_P.epoch, _P.seq, _P.step)
    )
    changes: dict[Place, list[PoolChange]] = {}
    posting: Any
    for posting in await connection.execute(moved):
        changes.setdefault((posting.epoch, posting.seq), []).append(PoolChange(*posting[2:]))
    head: Any
    entries = []
    for head in await connection.execute(heads):
        members: list[Any] = list(head)
        members.insert(-2, tuple(changes.get((head.epoch, head.seq), ())))
        entries.append(Entry(*members))
    return entries


async def _hold_of(connection: AsyncConnection, hold: str, now_ms: int) -> Hold | None:
    parsed = parse_hold_id(hold)
    if parsed is None:
        return None
    partition, _, seq = parsed
    made = await connection.execute(
        sa.select(_H.created_epoch, _H.created_seq)
        .join(ENTRIES, _same(_E, _H.partition, _H.created_epoch, _H.created_seq))
        .where(_H.partition == partition, _H.created_seq == seq, _E.hold == hold)
    )
    folded = await _holds_at(connection, partition, [(row[0], row[1]) for row in made], now_ms)
    return folded[0] if folded else None


async def _cart(connection: AsyncConnection, hold: Hold, sku: str | None, now_ms: int) -> Hold | None:
    """The hold, or where it is a part of a cart the cart; None where that stands elsewhere on the pages."""
    if not is_part(hold.id):
        return hold
    return None if sku is None else await _hold_of(connection, carts.first_of(hold), now_ms)


async def _holds_at(connection: AsyncConnection, partition: str, places: Sequence[Place], now_ms: int) -> list[Hold]:
    """The holds that were made at these places, in their order."""
    if not places:
        return []
    seqs = [seq for _, seq in places]
    rows = await connection.execute(_places_of_holds(partition, seqs))
    entries: dict[int, list[Entry]] = {seq: [] for seq in seqs}
    for entry in await _entries_at(connection, partition, [(row[0], row[1]) for row in rows]):
        parsed = parse_hold_id(entry.hold or "")
        if parsed is not None and entry.kind in HOLD_STATE_AFTER:
            entries[parsed[2]].append(entry)
    return [fold_hold(entries[seq], now_ms) for seq in seqs]


def _wanted(places: Sequence[Place]) -> Any:
    epochs = sa.literal([epoch for epoch, _ in places], ARRAY(sa.Integer))
    seqs = sa.literal([seq for _, seq in places], ARRAY(sa.BigInteger))
    return (
        sa.func.unnest(epochs, seqs)
        .table_valued(sa.column("epoch", sa.Integer), sa.column("seq", sa.BigInteger), name="wanted")
        .render_derived()
    )


def _any(values: Sequence[int]) -> Any:
    return sa.func.any(sa.literal(list(values), ARRAY(sa.BigInteger)))


def _same(columns: Any, partition: Any, epoch: Any, seq: Any) -> Any:
    return sa.and_(columns.partition == partition, columns.epoch == epoch, columns.seq == seq)


def _page(items: list[Any], limit: int, positions: Positions, as_of: str, place_of: Any) -> dict[str, Any]:
    """Cut to `limit`; `items` holds one more where there is more."""
    more, items = len(items) > limit, items[:limit]
    if not more:
        return {"items": items, "next_cursor": None, "as_of": as_of}
    reached = dict(positions)
    for item in items:
        partition, place = place_of(item)
        reached[partition] = place
    return {"items": items, "next_cursor": cursor_of(reached), "as_of": as_of}
