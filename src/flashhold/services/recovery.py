"""When a partition is restored: by the worker that finds that the ledger has more than its store, or by hand."""

import os
import socket
import time
from typing import NamedTuple

import redis

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError, Recovering
from flashhold.engine.address import blocking_client
from flashhold.engine.journal import Journal
from flashhold.engine.options import EngineOptions
from flashhold.engine.revive import stored_options
from flashhold.ledger.beginnings import was_installed
from flashhold.ledger.connect import connect_sync, shared_sync
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.gauges import WorkerGauges
from flashhold.services.restore import AUTOMATIC, Finding, Restore, Restored, Why, examine
from flashhold.services.write_behind import WriteBehind

NOT_TO_BE_SWEPT = frozenset({Why.EMPTY, Why.BEHIND, Why.FORKED})
"""A sweep of such a store would write entries that can follow nothing."""

_log = telemetry.logger(__name__)


class Look(NamedTuple):
    """What a look at both stores came to. `sound`: the store may be swept; `restored`: where that was done just now."""

    sound: bool
    finding: Finding | None
    restored: Restored | None = None


class Recovery:
    """The worker's watch over its partition. Blocking: call it from a thread."""

    def __init__(
        self,
        client: "redis.Redis",
        database_url: str,
        options: EngineOptions,
        *,
        gauges: WorkerGauges | None = None,
    ) -> None:
        self.gauges = gauges or WorkerGauges()
        self._client = client
        self._database_url = database_url
        self._options = options
        self._shown = (0, 0)
        self._journal = Journal(client, options.partition)
        self._ledger = shared_sync(database_url)
        self._said = ""

    def look(self) -> Look:
        """Compare both stores, and restore where that throws nothing away. Never raises for a store that is away."""
        try:
            finding = examine(self._journal, self._ledger, self._options.partition)
            if finding.store is not None:
                self.was_shown(finding.store.epoch, finding.store.seq)
            begins = self._is_beginning(finding)
            restored = self._restore(finding) if finding.why in AUTOMATIC and not begins else None
        except FlashHoldError as error:
            self._say("recovery-waits", str(error))
            return Look(False, None)
        if restored is not None:
            self._said = ""
            return Look(restored.place is not None, finding, restored)
        self.gauges.recovering.set(finding.why != Why.WHOLE)
        sound = finding.why not in NOT_TO_BE_SWEPT
        if finding.why != Why.WHOLE and not begins:
            self._say("recovery-needs-someone", f"{finding.sentence}; see `flashhold restore`")
        return Look(sound, finding)

    def admit(self) -> None:
        """Compare both stores for a connection that was just made, and do nothing about it. Raises `Recovering` where
        nothing may be written over it, `StoreUnavailable`, `LedgerUnavailable`."""
        finding = examine(self._journal, self._ledger, self._options.partition)
        if finding.why in NOT_TO_BE_SWEPT:
            raise Recovering(finding.sentence)

    def was_shown(self, epoch: int, seq: int) -> None:
        """The store has shown this process that place: what a restore cannot bring back up to there is missing."""
        self._shown = max(self._shown, (epoch, seq))

    def close(self) -> None:
        self._ledger.dispose()

    def _is_beginning(self, finding: Finding) -> bool:
        """Two empty stores that nobody has ever seen otherwise: the first API process makes the partition."""
        empty = finding.why == Why.EMPTY and finding.cursor.seq == 0 and finding.cursor.epoch == 1
        return empty and self._shown == (0, 0) and not was_installed(self._ledger, self._options.partition)

    def _restore(self, finding: Finding) -> Restored:
        self.gauges.recovering.set(1)
        level = str(self._options.durability)
        # The ledger is written by this process's write-behind, or by another's: here there is only to wait for it.
        restore = Restore(
            self._client, self._database_url, self._options, level=level, write_on=lambda: time.sleep(0.02)
        )
        try:
            done = restore.run(finding, seen=self._shown)
        finally:
            restore.close()
        if done.place is not None:
            self._shown = (done.place.epoch, done.place.seq)
            self.gauges.recovering.set(0)
            self.gauges.restores.inc()
            self.gauges.missing_entries.set(done.missing.entries if done.missing else 0)
        return done

    def _say(self, event: str, what: str) -> None:
        """Once, not every second."""
        if what != self._said:
            self._said = what
            _log.error(event, partition=self._options.partition, reason=what)


class ByHand(NamedTuple):
    """What was found, and what was done about it: nothing without leave."""

    finding: Finding
    restored: Restored | None


def restore_by_hand(
    redis_url: str, database_url: str, options: EngineOptions, *, leave: bool, also_whole: bool = True
) -> ByHand:
    """Compare both stores and, with `leave`, rebuild Redis from the ledger whatever was found; without `also_whole`
    only where something is wrong.

    Raises `StoreUnavailable`, `LedgerUnavailable`, `LedgerConflict`.
    """
    client = blocking_client(redis_url, options.partition)
    ledger = connect_sync(database_url, name="restore")
    journal = Journal(client, options.partition)
    try:
        finding = examine(journal, ledger, options.partition)
        if not leave or (finding.why == Why.WHOLE and not also_whole):
            return ByHand(finding, None)
        holder = f"restore/{socket.gethostname()}/{os.getpid()}"
        writing = WriteBehind(journal, LedgerWriter(database_url, options.partition, holder=holder))

        def write_on() -> None:
            # Where a worker is running it holds the lease and writes; this one only does in its absence.
            if writing.turn(block=False) is None:
                time.sleep(0.05)

        chosen = stored_options(client, options)
        restore = Restore(client, database_url, chosen, level=str(chosen.durability), write_on=write_on)
        try:
            return ByHand(finding, restore.run(finding, by_hand=True))
        finally:
            restore.close()
            writing.close()
    finally:
        ledger.dispose()
        client.close()
