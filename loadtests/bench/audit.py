"""How long `flashhold audit` takes over many live holds, and how much of Redis' time it takes meanwhile."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from flashhold import Engine, EngineOptions
from flashhold.embedded.binaries import RedisBinary
from flashhold.engine.journal import Journal
from flashhold.ledger import upgrade
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.audit import audit
from flashhold.services.write_behind import WriteBehind
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_most

BAR_S = 300.0
"""For a million live holds; it grows with their number."""
BAR_SHARE = 0.25
"""Of Redis' time: it says a fifth of itself, and what the server counts is less."""
_PORTION = 100_000


@dataclass(frozen=True)
class Size:
    holds: int = 250_000


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(stores.postgres_server(directory))
        database_url = stores.new_database(postgres, "audited")
        upgrade(database_url)
        server = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        engine = await stack.enter_async_context(use.engine_on(server))
        await _fill(engine, client, database_url, size.holds)
        client.config_set("slowlog-log-slower-than", 1_000)
        client.slowlog_reset()
        client.config_resetstat()
        began = time.monotonic()
        report = await audit(engine, database_url)
        seconds = time.monotonic() - began
        if not report.clean or report.holds < size.holds:
            raise RuntimeError(f"the audit saw {report.holds} holds and found {report.differences[:3]}")
        scripts_s, longest_ms = _scripts(client)
        on = f"{server.name}, {stores.postgres_version(postgres)}"
    title = f"audit of {size.holds:,} live holds"
    told = {"seconds": seconds, "of_Redis_s": scripts_s, "longest_script_ms": longest_ms}
    return [
        at_most(f"{title}: seconds a million", seconds / size.holds * 1e6, BAR_S, "disk", on, **told),
        at_most(f"{title}: share of Redis' time", scripts_s / seconds, BAR_SHARE, "disk", on),
    ]


async def _fill(engine: Engine, client: "redis.Redis", database_url: str, holds: int) -> None:
    """Live holds that outlast the bench, in both stores."""
    partition = EngineOptions().partition
    worker = WriteBehind(Journal(client, partition), LedgerWriter(database_url, partition, holder="bench"))
    try:
        for made in range(0, holds, _PORTION):
            await use.hold_in_bulk(engine, use.holds(min(_PORTION, holds - made), ttl_ms=86_000_000))
            await asyncio.to_thread(worker.drain)
            use.trim_journal(client)
    finally:
        worker.close()


def _scripts(client: "redis.Redis") -> tuple[float, float]:
    """Seconds in scripts since the statistics were reset, and the longest, in ms (0: none over one)."""
    told: Any = client.info("commandstats")
    spent_s = sum(told[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in told) / 1e6
    return spent_s, max((slow["duration"] for slow in client.slowlog_get(1_000)), default=0) / 1e3
