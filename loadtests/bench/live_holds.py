"""Whether a hold costs more when a million others are alive on the same SKU.

Two servers side by side, one with few live holds and one with many; rounds of new holds on each in turn, from one
process. Level memory: an fsync would hide the difference that this looks for.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from flashhold.embedded.binaries import RedisBinary
from flashhold.engine.engine import Engine
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_most, ratio

BAR = 1.2


@dataclass(frozen=True)
class Size:
    few: int = 1_000
    many: int = 1_000_000
    holds: int = 4_000
    """A round; few, so that the server with few stays one with few."""
    repetitions: int = 15


@dataclass
class _Side:
    server: stores.Redis
    client: "redis.Redis"
    seconds: list[float]
    server_seconds: list[float]


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    return [figure for durable in (True, False) for figure in await _measure(directory, size, binary, durable)]


async def _measure(directory: Path, size: Size, binary: RedisBinary | None, durable: bool) -> list[Figure]:
    ours, theirs = stores.two_cores()
    async with AsyncExitStack() as stack:
        sides = []
        for _ in range(2):
            server = stack.enter_context(stores.redis_server(directory, durable=durable, binary=binary, core=theirs))
            sides.append(_Side(server, stack.enter_context(redis.Redis.from_url(server.url)), [], []))
        few, many = sides
        with use.on_core(ours):
            engine = await stack.enter_async_context(use.engine_on(many.server))
            await _fill(many, engine, size.many)
            for _ in range(size.repetitions):
                few.client.flushall()
                few.client.memory_purge()  # so that both sides grow into memory that they have to get first
                async with use.engine_on(few.server) as engine_of_few:
                    await _fill(few, engine_of_few, size.few)
                    await _round(few, engine_of_few, size.holds)
                await _round(many, engine, size.holds)
    level = "disk" if durable else "memory"
    title = f"live holds: a hold among {size.many:,} ÷ among {size.few:,}"
    return [
        _figure(f"{title}, wall clock", many.seconds, few.seconds, size, level, server.name),
        _figure(f"{title}, time in the script", many.server_seconds, few.server_seconds, size, level, server.name),
    ]


def _figure(title: str, many: Sequence[float], few: Sequence[float], size: Size, level: str, server: str) -> Figure:
    found = ratio(many, few)
    told = {
        "us_among_many": found.above / size.holds * 1e6,
        "us_among_few": found.below / size.holds * 1e6,
        "spread": found.spread,
    }
    return at_most(title, found.quotient, BAR, level, server, **told)


async def _fill(side: _Side, engine: Engine, count: int) -> None:
    """Live holds that outlast the bench; the journal is trimmed on the way, as the write-behind would."""
    portion = 100_000
    for made in range(0, count, portion):
        await use.hold_in_bulk(engine, use.holds(min(portion, count - made), ttl_ms=86_000_000))
        use.trim_journal(side.client)


async def _round(side: _Side, engine: Engine, count: int) -> None:
    before = _script_seconds(side.client)
    side.seconds.append(await use.hold_in_bulk(engine, use.holds(count, ttl_ms=86_000_000)))
    side.server_seconds.append(_script_seconds(side.client) - before)
    use.trim_journal(side.client)


def _script_seconds(client: "redis.Redis") -> float:
    """Time that the server has spent in scripts since it started."""
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / 1e6
