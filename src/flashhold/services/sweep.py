"""Expires holds that nobody came back for, and forgets what is past its time.

Decisions never wait for it: they take back what is overdue by themselves. Any number of sweepers may run; each finds
what the others have left.
"""

import asyncio
import random
import time
from dataclasses import dataclass

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError
from flashhold.domain.model import Swept
from flashhold.engine.engine import Engine
from flashhold.services.gauges import WorkerGauges

_log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How hard to sweep. Times are ms."""

    expire_max: int = 128
    """Holds a sweep: 1-2 ms of the server, so that a hold that arrives meanwhile waits no longer than that."""
    purge_max: int = 256
    pause_ms: int = 500
    """Between sweeps that found all they could; jittered, so that several sweepers spread out."""
    patience_ms: int = 10_000
    """The longest wait between tries while the store is away."""


class Sweeper:
    """The sweeper of one engine."""

    def __init__(
        self, engine: Engine, *, options: SweepOptions | None = None, gauges: WorkerGauges | None = None
    ) -> None:
        self.options = options or SweepOptions()
        self.gauges = gauges or WorkerGauges()
        self._engine = engine

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop` is set."""
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                swept = await self.sweep()
                failures = 0
                pause_s = self._pause_s(swept, time.monotonic() - began)
            except FlashHoldError as error:
                failures += 1
                self.gauges.failures.labels("redis").inc()
                pause_s = random.uniform(0, min(self.options.patience_ms, 100 * 2 ** min(failures, 10))) / 1000
                _log.warning("sweep-failed", reason=str(error), tries=failures, wait_s=round(pause_s, 2))
            await wait(stop, pause_s)

    async def sweep(self) -> Swept:
        """One bounded sweep. Raises what `Engine.sweep` raises."""
        swept = await self._engine.sweep(expire_max=self.options.expire_max, purge_max=self.options.purge_max)
        self.gauges.expired.inc(swept.expired)
        self.gauges.purged.inc(swept.purged)
        self.gauges.lateness_seconds.set(swept.lateness_max_ms / 1000)
        return swept

    def _pause_s(self, swept: Swept, took_s: float) -> float:
        """With more to do, rest for a small part of the time that the sweep took: sweeps are short, and buyers get in
        between any two of them anyway."""
        if swept.more:
            return took_s * random.uniform(0.02, 0.06)
        return self.options.pause_ms * random.uniform(0.5, 1.0) / 1000


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until `stop`."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
