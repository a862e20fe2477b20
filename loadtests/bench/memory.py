"""What a live hold costs in Redis, its idempotency record and its deadline included, once the journal is drained."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from flashhold.embedded.binaries import RedisBinary, redis_binaries
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_most

BAR_BYTES = 300


@dataclass(frozen=True)
class Size:
    holds: int = 200_000


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    """On every kind of server that is here, or only on `binary`."""
    return [await _measure(directory, size, kind) for kind in ([binary] if binary else redis_binaries())]


async def _measure(directory: Path, size: Size, binary: RedisBinary) -> Figure:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        engine = await stack.enter_async_context(use.engine_on(server))
        use.trim_journal(client)
        before = _used(client)
        await use.hold_in_bulk(engine, use.holds(size.holds))
        use.trim_journal(client)
        used = _used(client) - before
    told = {"live_holds": size.holds, "MB": used / 1e6}
    return at_most("memory: Redis bytes a live hold", used / size.holds, BAR_BYTES, "disk", server.name, **told)


def _used(client: "redis.Redis") -> int:
    return int(client.info("memory")["used_memory"])
