"""Reads on in the journal from where the ledger stands, and believes nothing that the chain does not prove."""

from typing import NamedTuple

from flashhold.domain.entries import Batch, Entry
from flashhold.domain.errors import LedgerConflict
from flashhold.engine.journal import Journal, Place, chain_after, decode_batch
from flashhold.ledger.rows import Rows
from flashhold.ledger.writer import Cursor


class Group(NamedTuple):
    """Batches that follow the cursor `after`, decoded and checked. `conflict`: why the one behind them was refused.
    `more`: there were as many as had been asked for, so there may be more."""

    after: Cursor
    batches: list[Batch]
    rows: Rows
    conflict: LedgerConflict | None
    more: bool = False


def cursor_after(batch: Batch) -> Cursor:
    """Where the ledger stands once it has this batch."""
    return Cursor(batch.epoch, batch.first_seq + batch.count - 1, batch.chain, batch.stream_id)


def next_group(journal: Journal, cursor: Cursor, batches_max: int, block_ms: int) -> Group:
    """The batches behind the cursor, as far as they are what must come next. Raises `StoreUnavailable`."""
    rows, here = Rows(), cursor
    good: list[Batch] = []
    try:
        batches = journal.read(cursor.stream_id, batches_max, block_ms)
    except (LookupError, ValueError) as error:
        strange = LedgerConflict(f"the journal has a record behind {cursor.stream_id} that no script wrote: {error!r}")
        return Group(cursor, good, rows, strange)
    for batch in batches:
        try:
            check_follows(here, batch)
            rows.add(batch, decoded(batch))
        except (LedgerConflict, ValueError, TypeError, LookupError) as error:
            if not isinstance(error, LedgerConflict):
                error = LedgerConflict(f"{_name(batch)} holds what no entry can: {error!r}")
            return Group(cursor, good, _rows_of(good), error)
        good.append(batch)
        here = cursor_after(batch)
    return Group(cursor, good, rows, None, more=len(good) == batches_max)


def _rows_of(batches: list[Batch]) -> Rows:
    """The rows of the batches before a refused one, made again: half of that one may be among the first ones."""
    rows = Rows()
    for batch in batches:
        rows.add(batch, decoded(batch))
    return rows


def _name(batch: Batch) -> str:
    return f"batch {batch.epoch}/{batch.first_seq} ({batch.stream_id})"


def check_follows(here: Cursor, batch: Batch) -> None:
    """Is this the batch that must come next? Raises `LedgerConflict`."""
    name = _name(batch)
    if batch.first_seq != here.seq + 1:
        raise LedgerConflict(f"{name} does not follow entry {here.epoch}/{here.seq}")
    if batch.epoch < here.epoch:
        raise LedgerConflict(f"{name} is of an epoch that has ended; the ledger is in epoch {here.epoch}")
    if batch.count < 1:
        raise LedgerConflict(f"{name} claims {batch.count} entries")
    if chain_after(here.chain, batch) != batch.chain:
        raise LedgerConflict(
            f"{name} breaks the chain: on {here.chain[:12]}… its content does not give {batch.chain[:12]}…"
        )


def is_behind(head: Place | None, cursor: Cursor) -> bool:
    """Has the store less than the ledger? It is empty, closed for a restore, or was put back from an old copy."""
    return head is None or (head.epoch, head.seq) < (cursor.epoch, cursor.seq)


def check_head(head: Place, cursor: Cursor) -> None:
    """The journal has nothing behind the cursor, so the store must stand exactly there. Raises `LedgerConflict`."""
    ours, theirs = f"{cursor.epoch}/{cursor.seq}", f"{head.epoch}/{head.seq}"
    if head.seq < cursor.seq or head.epoch < cursor.epoch:
        raise LedgerConflict(
            f"the store stands at {theirs}, behind the ledger at {ours}: it has lost what it had confirmed"
        )
    if head.seq > cursor.seq:
        raise LedgerConflict(f"the store stands at {theirs}, but its journal has nothing behind {ours}")
    if head.chain != cursor.chain:
        raise LedgerConflict(f"store and ledger both stand at {ours}, but with different histories")


def check_end(journal: Journal, cursor: Cursor) -> None:
    """Where the journal has nothing behind the cursor, does the store stand there too? Raises `LedgerConflict`,
    `StoreUnavailable`."""
    head = journal.head()  # first: what comes in meanwhile can then only be found behind the cursor
    if head is not None and not journal.read(cursor.stream_id, 1, 0):
        check_head(head, cursor)


def decoded(batch: Batch) -> list[Entry]:
    """The batch's entries. Raises `LedgerConflict` when the payload is none."""
    try:
        return decode_batch(batch)
    except (ValueError, TypeError, LookupError) as error:
        raise LedgerConflict(f"{_name(batch)} cannot be read: {error}") from error


def stream_place(stream_id: str) -> tuple[int, int]:
    """A stream id as the store orders them: (ms, number)."""
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number or 0)
