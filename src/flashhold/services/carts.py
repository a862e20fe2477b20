"""Finishes carts over several partitions that the process which ran them has left half-way.

A cart's first hold has ended, and parts of it are held still: they end as it has. The ledger, which may lag, says where
to look; what to do is decided by the first hold as its store has it. Every step may be repeated, so any number of
workers may do this, and beside the processes that serve.
"""

import asyncio
import random
import time
from collections.abc import Mapping

from flashhold import telemetry
from flashhold.domain import carts
from flashhold.domain.errors import FlashHoldError
from flashhold.domain.model import HoldState
from flashhold.domain.outcomes import Applied
from flashhold.engine.carts import Carts
from flashhold.engine.engine import Engine
from flashhold.ledger.connect import shared_sync
from flashhold.ledger.parts import PAGE_PARTS, PartRow, first_in_ledger, parts_page
from flashhold.services.sweep import wait

PAUSE_MS = 1_000
GRACE_MS = 3_000
"""How long the process that runs a cart may take to end its parts itself."""
SETTLED_MS = 600_000
"""A part so old is no more overtaken on its way into the ledger by another partition's; what is ended before it is not
looked at again."""
ALL_AGAIN_S = 3_600.0
"""But once in this time, in case one was, behind a partition that had been stopped for long."""
PARTS_MAX = 2_000
"""Of a partition in a round: a second or two of work."""

_log = telemetry.logger(__name__)


class CartFollower:
    """`engines`: of all partitions; looking one up may raise what keeps it from being asked."""

    def __init__(self, engines: Mapping[str, Engine], database_url: str, *, grace_ms: int = GRACE_MS) -> None:
        self._engines = engines
        self._ledger = shared_sync(database_url)
        self._carts = Carts(engines)
        self._grace_s = grace_ms / 1000
        self._first_seen: dict[str, float] = {}
        self._settled: dict[str, str] = {}
        self._all_again_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop`; stores that are away are waited for."""
        try:
            while not stop.is_set():
                try:
                    await self.round()
                except FlashHoldError as error:
                    _log.warning("carts-not-followed", reason=str(error))
                await wait(stop, PAUSE_MS * random.uniform(0.5, 1.0) / 1000)
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        self._ledger.dispose()

    async def round(self) -> int:
        """One look at all parts that may be left; returns how many carts were seen to. Raises what the verbs of an
        `Engine` raise, and `LedgerUnavailable`; other carts are seen to first."""
        now = time.monotonic()
        if now >= self._all_again_at:
            self._settled, self._all_again_at = {}, now + ALL_AGAIN_S
        left: dict[str, list[PartRow]] = {}
        for partition in self._engines:
            for row in await asyncio.to_thread(self._left, partition):
                left.setdefault(carts.first_of_key(row.key), []).append(row)
        self._first_seen = {first: self._first_seen.get(first, now) for first in left}
        due = {first: parts for first, parts in left.items() if now - self._first_seen[first] >= self._grace_s}
        return await self._follow(due)

    def _left(self, partition: str) -> list[PartRow]:
        """Parts of carts whose first hold is in this partition that are held though the cart may have ended."""
        left: list[PartRow] = []
        after, is_settled = self._settled.get(partition), True
        while True:
            page = parts_page(self._ledger, partition, after)
            for row in page:
                after = row.key
                is_settled = is_settled and row.state != "held" and row.age_ms > SETTLED_MS
                if is_settled:
                    self._settled[partition] = row.key
            left += [row for row in page if row.is_left]
            if len(page) < PAGE_PARTS or len(left) > PARTS_MAX:
                return left

    async def _follow(self, left: Mapping[str, list[PartRow]]) -> int:
        followed, accident = 0, None
        for first, parts in left.items():
            try:
                followed += await self._end(first, parts)
            except FlashHoldError as error:
                accident = error
        if accident is not None:
            raise accident
        return followed

    async def _end(self, first: str, parts: list[PartRow]) -> bool:
        """Ends the parts of a cart, if it has ended; `parts`: those that the ledger has as held."""
        outcome = await self._engines[carts.place_of(first)].read_hold(first)
        hold = outcome.value if isinstance(outcome, Applied) else None
        if hold is None:
            hold = await asyncio.to_thread(first_in_ledger, self._ledger, first)
        if hold is None:
            # Lost with its store before anybody was told of it, or told no more than its level had promised.
            for part in parts:
                await self._engines[carts.partition_of_key(part.key)].release(part.id, reason="cart-lost")
            _log.warning("cart-lost", hold=first, parts=len(parts))
            return True
        if hold.state == HoldState.HELD:
            return False
        if hold.state != HoldState.EXPIRED and parts[0].first_state != hold.state.label:
            # The worker sees what nobody has been told yet, and its store may lose that: the ledger may not. (An expiry
            # that is lost comes again.)
            return False
        for sold, refusal in await self._carts.follow(hold):
            _log.error("part-not-sold", hold=first, part=sold.id, reason=refusal.reason.value)
        return True
