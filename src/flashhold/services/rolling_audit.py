"""The audit that never ends: small steps all the time, so that what somebody else writes into the store is found within
a minute, and its partition closed before much is sold from it.

Every few seconds the counters and rules of all pools are compared with the ledger's balances at the same place; between
that, some records at a time: those of all live holds with their deadlines, and whatever a queue says is remembered.
Whoever writes the ledger audits; what it finds beyond doubt stops the partition as a conflict in the journal does.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError
from flashhold.engine.engine import Engine
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.revival import place_of
from flashhold.ledger.standing import standing_at
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.counters_check import counter_differences
from flashhold.services.gauges import WorkerGauges
from flashhold.services.records_check import QUEUES, Difference, RecordsCheck, Suspect
from flashhold.services.sweep import wait

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class RollingOptions:
    """How eagerly to look. Times are ms."""

    page_holds: int = 1_000
    counters_every_ms: int = 3_000
    """Between two looks at the counters: 2 ms of the store for 10,000 pools."""
    rests: int = 49
    """Rest for so many times what a step has taken of the store: 2 % of its time."""
    rest_max_ms: int = 100
    """However slow the store answers: 100,000 live holds are looked at within a minute on a machine that is busy
    otherwise, within half of it on one that is not; that comes before the share."""
    patience_ms: int = 5_000
    """How long the ledger may take to come to where the store was looked at. Later, nothing can be said; the look is
    made again."""


class RollingAudit:
    """The audit of one partition. `leads`: whether this process writes the ledger; of several, one is enough."""

    def __init__(
        self,
        engine: Engine,
        database_url: str,
        *,
        options: RollingOptions | None = None,
        gauges: WorkerGauges | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self.options = options or RollingOptions()
        self.gauges = gauges or WorkerGauges()
        self.gauges.audit_age_seconds.set_function(self.age_s)
        self._engine = engine
        self._leads = leads
        self._ledger = connect_sync(database_url, name="rolling-audit")
        self._writer = LedgerWriter(database_url, engine.partition, holder="rolling-audit")
        self._check = RecordsCheck(engine, self._ledger, retention_ms=0)
        self._complete_at = self._began_at = time.monotonic()
        self._counted_at = 0.0
        self.rounds = 0
        """Complete ones."""
        self._end_seq: int | None = None
        self._begin_round()

    def age_s(self) -> float:
        """Time since the last whole round; since the beginning, where there was none."""
        return time.monotonic() - self._complete_at

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop`. Stores that are away are waited for."""
        try:
            while not stop.is_set():
                try:
                    await wait(stop, await self.step())
                except FlashHoldError as error:
                    _log.info("audit-waits", partition=self._engine.partition, reason=str(error))
                    await wait(stop, random.uniform(0.5, 1.0))
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Closes the ledger's connections; `run` does so by itself."""
        self._ledger.dispose()
        self._writer.close()

    async def step(self) -> float:
        """One step; how many seconds to rest behind it. Raises `StoreUnavailable`, `Recovering`,
        `LedgerUnavailable`, `LedgerConflict`."""
        cursor, halted = await asyncio.to_thread(place_of, self._ledger, self._engine.partition)
        if halted is not None or not self._leads():
            self._begin_round()
            self._complete_at = self._began_at
            return 1.0
        if self._end_seq is None:
            self._end_seq = cursor.seq  # what is made from here on is the next round's: a busy shop makes more for ever
        before_s = self._engine.survey.spent_s
        began = time.monotonic()
        if began - self._counted_at >= self.options.counters_every_ms / 1000:
            self._counted_at = began
            found = await self._counters()
        else:
            found = await self._records()
        if found:
            await self._close(cursor.epoch, found)
        spent_s = self._engine.survey.spent_s - before_s
        return max(0.01, min(self.options.rest_max_ms / 1000, self.options.rests * spent_s))

    def _begin_round(self) -> None:
        self._began_at = time.monotonic()
        self._last_seq = 0
        self._end_seq = None
        self._behind = 0
        self._to_do = ["holds", *QUEUES]
        self._holds = 0

    async def _counters(self) -> list[Difference]:
        """A difference at one place is beyond doubt; it is looked for again all the same, because of what follows."""
        return await self._counters_once() and await self._counters_once()

    async def _counters_once(self) -> list[Difference]:
        snapshot = await self._engine.snapshot()
        place = snapshot.place
        if not await self._reached(place.seq):
            return []
        standing = await asyncio.to_thread(standing_at, self._ledger, self._engine.partition, place.epoch, place.seq)
        return [] if standing is None else list(counter_differences(snapshot, standing))

    async def _records(self) -> list[Difference]:
        """The next page of this round."""
        name = self._to_do[0]
        if name == "holds":
            page = await self._check.page(self._last_seq, self.options.page_holds)
            suspects, over = page.suspects, not page.last_seq or page.last_seq >= (self._end_seq or 0)
            self._last_seq, self._holds = page.last_seq, self._holds + page.holds
        else:
            items, suspects = await self._check.queue(name, self._behind)
            self._behind, over = self._behind + items, not items
        found = await self._judge(suspects)
        if over:
            self._last_seq = self._behind = 0
            self._to_do.pop(0)
        if not self._to_do:
            self._end_round()
        return found

    async def _judge(self, suspects: Sequence[Suspect]) -> list[Difference]:
        if not suspects or not await self._reached(max(one.seen[1] for one in suspects)):
            return []
        return await self._check.confirmed(suspects)

    def _end_round(self) -> None:
        now = time.monotonic()
        self._complete_at = now
        self.rounds += 1
        self.gauges.audit_round_seconds.set(now - self._began_at)
        self.gauges.audit_findings.set(0)
        _log.debug("audit-round", holds=self._holds, seconds=round(now - self._began_at, 2))
        self._begin_round()

    async def _reached(self, seq: int) -> bool:
        until = time.monotonic() + self.options.patience_ms / 1000
        while time.monotonic() < until:
            cursor, halted = await asyncio.to_thread(place_of, self._ledger, self._engine.partition)
            if halted is not None:
                return False
            if cursor.seq >= seq:
                return True
            await asyncio.sleep(0.02)
        return False

    async def _close(self, epoch: int, found: Sequence[Difference]) -> None:
        first = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        reason = (
            f"the audit found what no script wrote: {first.what}: {first.where}: expected {first.expected}, "
            f"found {first.found}{more}; see `flashhold audit`, then `flashhold restore`"
        )
        self.gauges.audit_findings.set(len(found))
        if await asyncio.to_thread(self._writer.close_partition, epoch, reason):
            _log.error("partition-closed", partition=self._engine.partition, epoch=epoch, reason=reason)
            self.gauges.halted.set(1)
