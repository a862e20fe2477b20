"""The worker process: the write-behind in a thread of its own, sweeper and rolling audit beside it, until SIGTERM; all
that for every partition.

Any number may run. Of each partition one writes the ledger, the others stand by and take over when it falls silent; all
sweep.
"""

import asyncio
import dataclasses
import os
import random
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import start_http_server

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError, Misconfigured, Recovering
from flashhold.domain.places import partition_names
from flashhold.engine.address import blocking_client
from flashhold.engine.durability import Durability
from flashhold.engine.engine import Engine
from flashhold.engine.journal import Journal
from flashhold.ledger.schema import upgrade
from flashhold.ledger.writer import LedgerWriter
from flashhold.services import count_buyers
from flashhold.services.carts import CartFollower
from flashhold.services.gauges import WorkerGauges
from flashhold.services.recovery import Recovery
from flashhold.services.rolling_audit import RollingAudit, RollingOptions
from flashhold.services.sweep import Sweeper, wait
from flashhold.services.write_behind import WriteBehind
from flashhold.settings import Settings
from flashhold.wiring import engine_options, read_settings

LOOK_PAUSE_S = 0.5
"""Between two looks at whether the store still has what the ledger has."""
THREADS_MIN, THREADS_A_PARTITION = 4, 3
"""For what blocks: a partition looks at its stores, audits and counts at the same time."""

_log = telemetry.logger(__name__)


def run(settings: Settings | None = None) -> None:
    """Work until SIGTERM or SIGINT, then finish the group in hand. Raises `Misconfigured`."""
    settings = settings or read_settings()
    telemetry.configure_logging(settings.log_level, settings.log_format)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gauges = WorkerGauges(several=settings.partitions > 1)
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port, settings.host, gauges.registry)
    if not await _prepare(settings.database_url, stop):
        return
    names = partition_names(settings.partitions)
    # Looks at the stores block a thread each; those of a partition must not wait for another's that is away.
    loop.set_default_executor(ThreadPoolExecutor(THREADS_MIN + THREADS_A_PARTITION * len(names)))
    sound = Sound(names)
    tasks = [asyncio.create_task(_work_on(settings, name, gauges.of(name), sound, stop)) for name in names]
    if len(names) > 1:
        tasks.append(asyncio.create_task(CartFollower(sound, settings.database_url).run(stop)))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    stop.set()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended
    _log.info("worker-stopped")


class Sound(Mapping[str, Engine]):
    """The engines by partition; looking up one whose store has not what the ledger has raises `Recovering`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.engines: dict[str, Engine] = {}

    def __getitem__(self, partition: str) -> Engine:
        if partition not in self.engines:
            raise Recovering(f"the store of partition {partition} has not been compared with the ledger")
        return self.engines[partition]

    def __contains__(self, partition: object) -> bool:
        return partition in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


async def _work_on(settings: Settings, partition: str, gauges: WorkerGauges, sound: Sound, stop: asyncio.Event) -> None:
    """One partition's share of the work. What ends its write-behind ends the worker."""
    loop = asyncio.get_running_loop()
    write_behind = write_behind_of(settings, gauges, partition)
    died: list[BaseException] = []

    def write() -> None:
        try:
            write_behind.run()
        except BaseException as error:  # noqa: BLE001  # raised again below, where it ends the process
            died.append(error)
        loop.call_soon_threadsafe(stop.set)

    writing = threading.Thread(target=write, name=f"write-behind-{partition}")
    writing.start()
    _log.info("worker-started", partition=partition)
    try:
        await _sweep(settings, partition, gauges, sound, stop, lambda: write_behind.leads)
    finally:
        write_behind.stop()
        await asyncio.to_thread(writing.join)
    if died:
        raise died[0]


def write_behind_of(settings: Settings, gauges: WorkerGauges, partition: str) -> WriteBehind:
    """The write-behind of one partition, named for this process."""
    # Several seconds: a read waits half a second by itself, and the server may be busy with a long script.
    client = blocking_client(settings.redis_url, partition)
    holder = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    writer = LedgerWriter(settings.database_url, partition, holder=holder)
    replicated = Durability(settings.durability) == Durability.REPLICA
    return WriteBehind(Journal(client, partition, replicated=replicated), writer, gauges=gauges)


async def _prepare(database_url: str, stop: asyncio.Event) -> bool:
    """Bring the ledger's tables up to date as soon as Postgres is there; False where `stop` came first."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(upgrade, database_url)
            return True
        except Misconfigured:
            raise
        except FlashHoldError as error:
            _log.warning("ledger-not-prepared", reason=str(error))
            await wait(stop, random.uniform(0.2, 1.0))
    return False


async def _sweep(
    settings: Settings,
    partition: str,
    gauges: WorkerGauges,
    sound: Sound,
    stop: asyncio.Event,
    leads: Callable[[], bool],
) -> None:
    """Sweep, count and audit for as long as the store has what the ledger has; where it has not, see to that first."""
    chosen = engine_options(settings, partition=partition)
    client = blocking_client(settings.redis_url, partition)
    recovery = Recovery(client, settings.database_url, chosen, gauges=gauges)

    async def admit(_: object) -> None:
        await asyncio.to_thread(recovery.admit)

    # Nobody waits for a sweep's acknowledgement, and a sweep that is lost is simply made again.
    options = dataclasses.replace(chosen, durability=Durability.MEMORY, admit=admit)
    try:
        while not stop.is_set():
            if not (await asyncio.to_thread(recovery.look)).sound:
                await wait(stop, random.uniform(0.2, 0.5))
                continue
            try:
                engine = await Engine.connect(settings.redis_url, options=options)
            except Misconfigured:
                raise
            except FlashHoldError as error:
                _log.warning("store-not-reached", reason=str(error))
                await wait(stop, random.uniform(0.2, 1.0))
                continue
            sound.engines[partition] = engine
            try:
                await _while_sound(engine, recovery, settings, gauges, sound, stop, leads)
            finally:
                sound.engines.pop(partition, None)
                await engine.close()
    finally:
        recovery.close()
        client.close()


async def _while_sound(
    engine: Engine,
    recovery: Recovery,
    settings: Settings,
    gauges: WorkerGauges,
    sound: Sound,
    stop: asyncio.Event,
    leads: Callable[[], bool],
) -> None:
    """Sweep until `stop`, or until the store has lost something: from then on nothing may be written into it."""
    over = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            await wait(stop, LOOK_PAUSE_S)
            recovery.was_shown(*engine.seen)
            if stop.is_set() or not (await asyncio.to_thread(recovery.look)).sound:
                break
        sound.engines.pop(engine.partition, None)  # at once: other partitions' carts may be about to end here
        over.set()

    options = RollingOptions().shared_by(settings.partitions)
    rolling = RollingAudit(engine, settings.database_url, options=options, gauges=gauges, leads=leads)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        tasks.create_task(Sweeper(engine, gauges=gauges).run(over))
        tasks.create_task(count_buyers.run(engine, settings.database_url, over))
        tasks.create_task(rolling.run(over))
