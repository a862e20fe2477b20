"""The engine as the benches use it: a stocked SKU, and holds by the thousand."""

import asyncio
import gc
import itertools
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import redis

from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain import model
from flashhold.domain.commands import Hold
from flashhold.domain.outcomes import Outcome
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from loadtests import stores

SKU = "HOT-2026-BLACK-42"
BULK = 1_024
"""Commands a `submit_many`; two are under way at a time, so that the next is encoded while the server decides."""

_BEYOND_ALL = f"{2**64 - 1}-{2**64 - 1}"
"""The greatest stream id that there can be."""


@asynccontextmanager
async def engine_on(server: stores.Redis, skus: tuple[str, ...] = (SKU,)) -> AsyncIterator[Engine]:
    """An engine on an empty server, with more stock of each SKU than a bench can hold."""
    level = Durability.DISK if server.durable else Durability.MEMORY
    # Two bulks wait beside the two batches in flight; a reply may be late while a million holds are filled in.
    options = EngineOptions(durability=level, reply_timeout_ms=10_000)
    async with await Engine.connect(server.url, options=options) as engine:
        await stock(engine, skus)
        yield engine


async def stock(engine: Engine, skus: tuple[str, ...] = (SKU,)) -> None:
    """Install the partition and put a thousand million units of each SKU on sale."""
    await engine.install()
    for sku in skus:
        received = await engine.move("receipt", sku, 1_000_000_000, key=uuid.uuid4().hex)
        assert isinstance(received, Applied), received


def holds(count: int, sku: str = SKU, ttl_ms: int = 600_000) -> Iterator[Hold]:
    """Holds of one unit with keys as clients make them (36 characters), each of another buyer."""
    run = uuid.uuid4().hex
    lines = (Line(sku, 1),)
    for number in range(count):
        yield Hold(f"{run}-{number:03d}", lines, f"buyer-{number}", ttl_ms)


async def hold_in_bulk(engine: Engine, commands: Iterator[Hold]) -> float:
    """Seconds for all of them by `submit_many`, two at a time. Raises RuntimeError if one is not accepted.

    The commands are made before the clock starts and the outcomes looked at after it has stopped: neither is the
    engine's work, as making its requests is none of `redis-benchmark`'s measured time.
    """
    chunks = iter(list(iter(lambda: list(itertools.islice(commands, BULK)), [])))
    outcomes: list[Sequence[Outcome[model.Hold]]] = []

    async def feed() -> None:
        for chunk in chunks:
            outcomes.append(await engine.submit_many(chunk))

    began = time.perf_counter()
    await asyncio.gather(feed(), feed())
    seconds = time.perf_counter() - began
    for some in outcomes:
        accepted(some)
    return seconds


async def hold_one_each(engine: Engine, commands: Iterator[Hold], tasks: int) -> float:
    """Seconds for all of them by `await engine.hold(…)`, one in each of `tasks` tasks at a time."""
    began = time.perf_counter()

    async def buy() -> None:
        for one in commands:
            outcome = await engine.hold(key=one.key, lines=one.lines, buyer=one.buyer, ttl_ms=one.ttl_ms)
            if type(outcome) is not Applied:
                raise RuntimeError(f"A hold was refused: {outcome}")

    await asyncio.gather(*(buy() for _ in range(tasks)))
    return time.perf_counter() - began


def accepted(outcomes: Sequence[Outcome[model.Hold]]) -> list[model.Hold]:
    """The holds. Raises RuntimeError unless every outcome is an acceptance that happened now."""
    made = []
    for outcome in outcomes:
        if not isinstance(outcome, Applied) or outcome.replayed:
            raise RuntimeError(f"A hold was not accepted: {outcome}")
        made.append(outcome.value)
    return made


def trim_journal(client: "redis.Redis") -> None:
    """As the write-behind does when the ledger has everything."""
    Journal(client, EngineOptions().partition).trim(_BEYOND_ALL)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this process on one core, as the server is kept on another, and its garbage collector out of the way."""
    mine = os.sched_getaffinity(0) if core is not None else set()
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        if core is not None:
            os.sched_setaffinity(0, mine)
        gc.set_threshold(*before)
        gc.unfreeze()
