"""Puts the parts together from the settings; the only place that reads them."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from pydantic import ValidationError

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError, Misconfigured, StoreUnavailable
from flashhold.engine.durability import Durability, LedgerGate
from flashhold.engine.engine import Engine
from flashhold.engine.journal import Place
from flashhold.engine.options import Admit, EngineOptions
from flashhold.ledger.beginnings import mark_installed
from flashhold.ledger.reader import Reader
from flashhold.ledger.schema import upgrade
from flashhold.services.ledger_gate import LedgerWatch
from flashhold.services.readiness import STARTING, Verdict, admit, judge
from flashhold.settings import Settings

OPENING_PAUSE_SECONDS = 0.2
"""Between attempts at a start: short, because `up` starts the stores at the same moment."""

_log = telemetry.logger(__name__)


def read_settings() -> Settings:
    """The settings of the environment. Raises Misconfigured, naming the variable that makes no sense."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"FLASHHOLD_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
        raise Misconfigured(f"a setting makes no sense: {wrong}") from error


def engine_options(settings: Settings, ledger_gate: LedgerGate | None = None) -> EngineOptions:
    """The engine's options as the settings have them; level `ledger` needs the gate."""
    return EngineOptions(
        durability=Durability(settings.durability),
        ledger_gate=ledger_gate,
        batch_size_max=settings.batch_size_max,
        batches_in_flight_max=settings.batches_in_flight_max,
        waiting_max=settings.waiting_max,
        reply_timeout_ms=settings.reply_timeout_ms,
        hold_ttl_ms=settings.hold_ttl_seconds * 1000,
        hold_ttl_max_ms=settings.hold_ttl_seconds_max * 1000,
        retention_ms=round(settings.retention_hours * 3_600_000),
        refused_retention_ms=round(settings.refused_retention_hours * 3_600_000),
    )


async def connect_engine(
    settings: Settings, ledger_gate: LedgerGate | None = None, admit: Admit | None = None
) -> Engine:
    """An engine on the deployment's Redis. Raises StoreUnavailable, NotDurable, Misconfigured."""
    options = dataclasses.replace(engine_options(settings, ledger_gate), admit=admit)
    return await Engine.connect(settings.redis_url, options=options)


class Stores:
    """The two stores of one process, and whether Redis may decide.

    Starting never fails for a store that is away: the process comes up, says on `/readyz` what is missing, and opens
    when it is there. Before the two stores have been compared once, nothing is decided.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reader = Reader(settings.database_url)
        self._ledger = LedgerWatch(self.reader)
        self.engine: Engine | None = None
        self.verdict: Verdict = STARTING
        self._tasks: list[asyncio.Task[None]] = []

    def decider(self) -> Engine:
        """The engine, if it may decide now. Raises `Recovering`, `StoreUnavailable` or `Misconfigured` otherwise."""
        closed = self.verdict.closed
        if closed is not None or self.engine is None:
            raise type(closed)(str(closed)) if closed is not None else STARTING.closed or RuntimeError
        return self.engine

    async def start(self, *, also: Sequence[tuple[Callable[[], Awaitable[None]], int]] = ()) -> None:
        """Begin to open the stores and to watch them; `also`: what else to repeat, and after how many ms."""
        self._tasks.append(asyncio.create_task(self._keep_open()))
        for work, pause_ms in also:
            self._tasks.append(asyncio.create_task(_repeat(work, pause_ms / 1000)))

    async def stop(self) -> None:
        """Stop watching, finish what is in flight, close both stores."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.engine is not None:
            await self.engine.close()
        await self.reader.close()

    async def _keep_open(self) -> None:
        await self._until_done(self._prepare_ledger)
        await self._until_done(self._connect)
        pause_seconds = self._settings.readiness_refresh_ms / 1000
        while True:
            await self._judge()
            await asyncio.sleep(pause_seconds if self.verdict.ready else min(pause_seconds, OPENING_PAUSE_SECONDS))

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except FlashHoldError as error:
                self._take(STARTING._replace(closed=error, place=f"not compared yet: {error}"))
                await asyncio.sleep(OPENING_PAUSE_SECONDS)
            else:
                return

    async def _prepare_ledger(self) -> None:
        revision = await asyncio.to_thread(upgrade, self._settings.database_url)
        _log.debug("ledger-prepared", revision=revision)

    async def _connect(self) -> None:
        self.engine = await connect_engine(self._settings, self._ledger.reached, self._admit)

    async def _admit(self, place: Callable[[], Awaitable[Place]]) -> None:
        await admit(engine_options(self._settings).partition, place, self.reader, self.verdict)

    async def _judge(self) -> None:
        assert self.engine is not None, "connected before"
        try:
            verdict = await judge(self.engine, self.reader, self.verdict, self._mark)
        except Exception as fault:  # noqa: BLE001  a watch that has died must not leave the door open
            _log.error("readiness-failed", exc_info=fault)
            verdict = self.verdict._replace(
                closed=StoreUnavailable("the stores could not be compared"), place=str(fault)
            )
        self._take(verdict)

    async def _mark(self, partition: str) -> bool:
        return await asyncio.to_thread(mark_installed, self._settings.database_url, partition)

    def _take(self, verdict: Verdict) -> None:
        changed = (verdict.ready, verdict.place) != (self.verdict.ready, self.verdict.place)
        self.verdict = verdict
        if changed:
            report = _log.info if verdict.ready else _log.warning
            report("readiness", ready=verdict.ready, **{name: getattr(verdict, name) for name in _WORDS})


_WORDS = ("redis", "ledger", "place")


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001  the next round may do better; silence would be worse
            _log.error("background-work-failed", exc_info=fault)
        await asyncio.sleep(seconds)
