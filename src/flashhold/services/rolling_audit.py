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
from dataclasses import dataclass, replace

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError
from flashhold.engine.engine import Engine
from flashhold.engine.survey import QUEUE_MAX
from flashhold.ledger.connect import shared_sync
from flashhold.ledger.revival import place_of
from flashhold.ledger.standing import standing_at
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.counters_check import counter_differences
from flashhold.services.gauges import WorkerGauges
from flashhold.services.records_check import QUEUES, Difference, RecordsCheck, Suspect
from flashhold.services.sweep import wait

COUNTERS_LATEST_S = 20.0
"""Between two looks at the counters, however many there are."""
QUEUED_US = 30
"""Time that a round allows itself for what a queue names, rests included: a million in half a minute."""
BEHIND_MAX_S = 1.0
"""How much of a delay is made up for: what waited for the ledger must not end in a rush."""

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class RollingOptions:
    """How eagerly to look. Times are ms."""

    page_holds: int = 500
    """That are read from the ledger at a time; the store is asked for a hundred or two at a time."""
    counters_every_ms: int = 3_000
    """Between two looks at the counters: 2 ms of the store for 10,000 pools."""
    rests: int = 49
    """Rest for so many times what a call has taken of the store, before the next: 2 % of its time."""
    rest_max_ms: int = 100
    """However long one answer took: a store that hung for a second is not left alone for a minute."""
    hold_max_us: int = 450
    """Time that a round allows itself for a live hold, rests included; while it is behind that, it does not rest. So
    100,000 live holds take less than a minute where the machine can do it at all; that comes before the share."""
    round_min_ms: int = 1_000
    """Begin no round sooner after the last: the ledger is asked too. No later: what is sold after a foreign write may
    have to be sorted out by hand."""
    patience_ms: int = 5_000
    """How long the ledger may take to come to where the store was looked at. Later, nothing can be said; the look is
    made again."""

    def shared_by(self, partitions: int) -> "RollingOptions":
        """The options of each of so many, which may all be on one server: together they take the share of one, and
        have the time of one for the live holds of all."""
        return replace(
            self,
            rests=(self.rests + 1) * partitions - 1,
            hold_max_us=self.hold_max_us * partitions,
            round_min_ms=self.round_min_ms * partitions,
        )


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
        self._ledger = shared_sync(database_url)
        self._writer = LedgerWriter(database_url, engine.partition, holder="rolling-audit")
        self._check = RecordsCheck(engine, self._ledger, retention_ms=0, rest=self._rest)
        self._complete_at = self._began_at = time.monotonic()
        self._count_at = 0.0
        self._due_at = 0.0
        """When what has been begun of this round should be done."""
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
        now = time.monotonic()
        counters_in = self._count_at - now
        records_in = self._begins_at - now
        if min(counters_in, records_in) > 0:
            return min(counters_in, records_in)
        if counters_in <= 0:
            found = await self._counters()
        else:
            if self._end_seq is None:
                self._began_at = self._due_at = now
                self._end_seq = cursor.seq  # what is made from here on is the next's: a busy shop makes more for ever
            found = await self._records()
        if found and not await self._is_behind():
            await self._close(cursor.epoch, found)
        return 0.01

    async def _is_behind(self) -> bool:
        """Whether the store has less than the ledger, and so is recovery's to mend, which does not need anyone for it.
        The ledger is asked first: a store that goes on can then never seem to be behind."""
        cursor, _ = await asyncio.to_thread(place_of, self._ledger, self._engine.partition)
        place = await self._engine.place()
        return (place.epoch, place.seq) < (cursor.epoch, cursor.seq)

    async def _rest(self, spent_s: float) -> None:
        ahead_s = max(0.0, self._due_at - time.monotonic())
        await asyncio.sleep(min(self.options.rests * spent_s, self.options.rest_max_ms / 1000, ahead_s))

    def _begin_round(self, in_s: float = 0.0) -> None:
        self._began_at = self._begins_at = time.monotonic() + in_s
        self._last_seq = 0
        self._end_seq = None
        self._behind = 0
        self._to_do = ["holds", *QUEUES]
        self._holds = 0

    async def _counters(self) -> list[Difference]:
        """A difference at one place is beyond doubt; it is looked for again all the same, because of what follows."""
        return await self._counters_once() and await self._counters_once()

    async def _counters_once(self) -> list[Difference]:
        began = time.monotonic()
        snapshot = await self._engine.snapshot()
        # They come in one piece, however many there are. Our reading of them is in this time: the share is less.
        often_s = max(self.options.counters_every_ms / 1000, self.options.rests * (time.monotonic() - began))
        self._count_at = time.monotonic() + min(often_s, COUNTERS_LATEST_S)
        place = snapshot.place
        if not await self._reached(place.seq):
            return []
        standing = await asyncio.to_thread(standing_at, self._ledger, self._engine.partition, place.epoch, place.seq)
        return [] if standing is None else list(counter_differences(snapshot, standing))

    async def _records(self) -> list[Difference]:
        """The next page of this round."""
        name = self._to_do[0]
        units, unit_us = (
            (self.options.page_holds, self.options.hold_max_us) if name == "holds" else (QUEUE_MAX, QUEUED_US)
        )
        self._due_at = max(self._due_at, time.monotonic() - BEHIND_MAX_S) + units * unit_us / 1e6
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
        self._begin_round(max(0.0, self._began_at + self.options.round_min_ms / 1000 - now))

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
