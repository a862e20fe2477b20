"""Puts the parts together from the settings; the only place that reads them."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError, Misconfigured, StoreUnavailable
from flashhold.domain.places import partition_names
from flashhold.engine.address import blocking_client
from flashhold.engine.durability import Durability, LedgerGate
from flashhold.engine.engine import Engine
from flashhold.engine.journal import Place
from flashhold.engine.options import Admit, EngineOptions
from flashhold.engine.partitions import Partitions
from flashhold.engine.revive import stored_options
from flashhold.ledger.beginnings import installed_partitions, mark_installed
from flashhold.ledger.reader import Reader
from flashhold.ledger.schema import upgrade
from flashhold.services.ledger_gate import LedgerWatch
from flashhold.services.readiness import STARTING, Verdict, admit, judge, together
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


def engine_options(
    settings: Settings, ledger_gate: LedgerGate | None = None, partition: str | None = None
) -> EngineOptions:
    """The options of a partition's engine (of the first one, where none is named) as the settings have them; level
    `ledger` needs the gate."""
    return EngineOptions(
        partition=partition or partition_names(1)[0],
        partitions=settings.partitions,
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


def stored_engine_options(settings: Settings, partition: str | None = None) -> list[EngineOptions]:
    """The options of every partition that there is, or of the one that is named, with what the store says of what all
    processes share: a command need not be told it. Raises StoreUnavailable, LedgerUnavailable, Misconfigured."""
    asked = engine_options(settings, partition=partition)
    with blocking_client(settings.redis_url, asked.partition) as client:
        stored = stored_options(client, asked)
    if stored.partitions == 1:
        # So says a store of one partition, but also one that has lost its state: the ledger tells them apart.
        stored = dataclasses.replace(stored, partitions=max(1, installed_partitions(settings.database_url)))
    names = partition_names(stored.partitions)
    if partition is not None and partition not in names:
        raise Misconfigured(f"there is no partition {partition}; there are {names[0]} to {names[-1]}")
    return [dataclasses.replace(stored, partition=name) for name in ([partition] if partition else names)]


async def connect_engine(
    settings: Settings,
    ledger_gate: LedgerGate | None = None,
    admit: Admit | None = None,
    partition: str | None = None,
) -> Engine:
    """An engine on the deployment's Redis. Raises StoreUnavailable, NotDurable, Misconfigured."""
    options = dataclasses.replace(engine_options(settings, ledger_gate, partition), admit=admit)
    return await Engine.connect(settings.redis_url, options=options)


class Gate:
    """One partition in one process: its engine, and whether that may decide.

    `may_begin`: whether the partition may be made where neither store has ever had it.
    """

    def __init__(
        self,
        settings: Settings,
        partition: str,
        reader: Reader,
        ledger_gate: LedgerGate,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self.partition = partition
        self.engine: Engine | None = None
        self.verdict: Verdict = STARTING
        self._settings = settings
        self._reader = reader
        self._ledger_gate = ledger_gate
        self._may_begin = may_begin

    def decider(self) -> Engine:
        """The engine, if it may decide now. Raises `Recovering`, `StoreUnavailable` or `Misconfigured` otherwise."""
        closed = self.verdict.closed
        if closed is not None or self.engine is None:
            raise type(closed)(str(closed)) if closed is not None else STARTING.closed or RuntimeError
        return self.engine

    @property
    def may_decide(self) -> bool:
        """Whether commands for this partition are taken now."""
        return self.engine is not None and self.verdict.closed is None

    async def keep_open(self) -> None:
        """Connect as soon as the store is there, then compare both stores again and again."""
        await self.until_done(self._connect)
        pause_seconds = self._settings.readiness_refresh_ms / 1000
        while True:
            await self._judge()
            await asyncio.sleep(pause_seconds if self.verdict.ready else min(pause_seconds, OPENING_PAUSE_SECONDS))

    async def until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        """Try until it succeeds, and say meanwhile what is in the way."""
        while True:
            try:
                await step()
            except FlashHoldError as error:
                self._take(STARTING._replace(closed=error, place=f"not compared yet: {error}"))
                await asyncio.sleep(OPENING_PAUSE_SECONDS)
            else:
                return

    async def _connect(self) -> None:
        self.engine = await connect_engine(self._settings, self._ledger_gate, self._admit, self.partition)

    async def _admit(self, place: Callable[[], Awaitable[Place]]) -> None:
        await admit(self.partition, place, self._reader, self.verdict)

    async def _judge(self) -> None:
        assert self.engine is not None, "connected before"
        try:
            verdict = await judge(self.engine, self._reader, self.verdict, self._mark, may_begin=self._may_begin())
        except Exception as fault:  # noqa: BLE001  a watch that has died must not leave the door open
            _log.error("readiness-failed", partition=self.partition, exc_info=fault)
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
            words = {name: getattr(verdict, name) for name in _WORDS}
            report("readiness", partition=self.partition, ready=verdict.ready, **words)


class Deciders(Mapping[str, Engine]):
    """The engines by partition; looking one up raises what keeps it from deciding now."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = {gate.partition: gate for gate in gates}

    def __getitem__(self, partition: str) -> Engine:
        return self._gates[partition].decider()

    def __contains__(self, partition: object) -> bool:
        return partition in self._gates

    def __iter__(self) -> Iterator[str]:
        return iter(self._gates)

    def __len__(self) -> int:
        return len(self._gates)


class Stores:
    """The two stores of one process, and whether Redis may decide, partition by partition.

    Starting never fails for a store that is away: the process comes up, says on `/readyz` what is missing, and opens
    when it is there. Before the two stores have been compared once, nothing is decided. A partition that is closed
    keeps only its own SKUs waiting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reader = Reader(settings.database_url)
        gate = LedgerWatch(self.reader).reached
        names = partition_names(settings.partitions)
        first = Gate(settings, names[0], self.reader, gate)
        # The first partition tells how many there are, so the others are not made before it agrees: of two processes
        # that start with different numbers one would otherwise leave partitions that no other looks into.
        more = [Gate(settings, name, self.reader, gate, lambda: first.verdict.opened) for name in names[1:]]
        self.gates = (first, *more)
        self.decider: Callable[[], Engine | Partitions] = first.decider
        """decider() → what takes commands now. Raises `Recovering`, `StoreUnavailable` or `Misconfigured` where it may
        not decide; of several partitions each says so for itself, when a command for it comes."""
        self._partitions: Partitions | None = None
        if more:
            self._partitions = partitions = Partitions(
                Deciders(self.gates), patience_s=settings.reply_timeout_ms / 1000
            )
            self.decider = lambda: partitions
        self._tasks: list[asyncio.Task[None]] = []
        self._preparing = asyncio.Lock()
        self._prepared = False

    @property
    def verdict(self) -> Verdict:
        """Of all partitions together: ready where all are."""
        return together({gate.partition: gate.verdict for gate in self.gates})

    @property
    def waiting(self) -> int:
        """Commands that no batch has taken yet."""
        return sum(gate.engine.waiting for gate in self.gates if gate.engine is not None)

    async def start(self, *, also: Sequence[tuple[Callable[[], Awaitable[None]], int]] = ()) -> None:
        """Begin to open the stores and to watch them; `also`: what else to repeat, and after how many ms."""
        self._tasks.append(asyncio.create_task(self._open()))
        for work, pause_ms in also:
            self._tasks.append(asyncio.create_task(_repeat(work, pause_ms / 1000)))

    async def stop(self) -> None:
        """Stop watching, finish what is in flight, close both stores."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._partitions is not None:
            await self._partitions.drain()
        await asyncio.gather(*[gate.engine.close() for gate in self.gates if gate.engine is not None])
        await self.reader.close()

    async def _open(self) -> None:
        for gate in self.gates[1:]:
            self._tasks.append(asyncio.create_task(self._open_one(gate)))
        await self._open_one(self.gates[0])

    async def _open_one(self, gate: Gate) -> None:
        await gate.until_done(self._prepare_ledger)
        await gate.keep_open()

    async def _prepare_ledger(self) -> None:
        async with self._preparing:
            if not self._prepared:
                revision = await asyncio.to_thread(upgrade, self._settings.database_url)
                self._prepared = True
                _log.debug("ledger-prepared", revision=revision)


_WORDS = ("redis", "ledger", "place")


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001  the next round may do better; silence would be worse
            _log.error("background-work-failed", exc_info=fault)
        await asyncio.sleep(seconds)
