"""Lets a partition go on that the write-behind has stopped, once what stopped it is gone.

Nobody has to be believed for it: what the journal holds is followed from the ledger's place to its end, as the
write-behind would, and the ledger is asked whether it would take what comes next.
"""

from typing import NamedTuple

from flashhold.domain.errors import LedgerConflict, Misconfigured, Recovering
from flashhold.engine.journal import Journal
from flashhold.ledger.writer import Cursor, LedgerWriter
from flashhold.services.follow import check_end, cursor_after, next_group

BATCHES_MAX = 64
"""Batches a look: a few MB of entries at the most, however long the journal has grown."""


class Resumption(NamedTuple):
    """What was found. `halted`: why the partition is or was stopped; `cause`: why it cannot go on, None where it can.
    `entries` in `batches` of the journal lie behind the ledger's place and were found to follow it."""

    partition: str
    epoch: int
    seq: int
    halted: str | None
    cause: str | None
    batches: int
    entries: int
    resumed: bool


def resume(journal: Journal, writer: LedgerWriter, *, look_only: bool = False) -> Resumption:
    """Look why the partition is stopped and, unless `look_only`, let it go on if nothing speaks against it any more.

    Raises `Misconfigured` for a partition that the ledger does not have, `StoreUnavailable`, `LedgerUnavailable`.
    """
    standing = writer.standing()
    if standing is None:
        raise Misconfigured(f"the ledger has no partition {writer.partition}")
    cursor, halted = standing
    found = Resumption(writer.partition, cursor.epoch, cursor.seq, halted, None, 0, 0, False)
    if halted is None:
        return found
    try:
        batches, entries = _follow(journal, writer, cursor)
    except (LedgerConflict, Recovering) as conflict:
        return found._replace(cause=str(conflict))
    found = found._replace(batches=batches, entries=entries)
    if look_only:
        return found
    if not writer.resume(standing):
        return found._replace(cause="it was changed by someone else meanwhile; look again")
    return found._replace(resumed=True)


def _follow(journal: Journal, writer: LedgerWriter, cursor: Cursor) -> tuple[int, int]:
    """Batches and entries from the cursor to where the store stands now. Raises `LedgerConflict`, `Recovering`."""
    head = journal.head()
    if head is None:
        raise Recovering("the store holds no state of the partition; it has to be rebuilt from the ledger first")
    here, batches = cursor, 0
    while True:
        group = next_group(journal, here, BATCHES_MAX, 0)
        if group.batches and here == cursor:
            writer.try_out(group.rows)
        if group.conflict:
            raise group.conflict
        if group.batches:
            batches += len(group.batches)
            here = cursor_after(group.batches[-1])
        if not group.batches or here.seq >= head.seq:
            check_end(journal, here)
            return batches, here.seq - cursor.seq
