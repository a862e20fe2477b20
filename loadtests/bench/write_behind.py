"""Whether the ledger keeps up: entries a second from a full journal into Postgres, against holds a second over HTTP."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import redis

from flashhold import EngineOptions
from flashhold.embedded.binaries import RedisBinary
from flashhold.engine.journal import Journal
from flashhold.ledger import upgrade
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import WriteBehind
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench import http_holds
from loadtests.bench.figures import Figure, at_least, ratio

BAR = 2.0


@dataclass(frozen=True)
class Size:
    entries: int = 200_000
    """Of each repetition, on a database that has those of the ones before."""
    repetitions: int = 3
    http: http_holds.Size = field(default_factory=http_holds.Size)


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    """In turn: HTTP holds, then a journal filled by the engine and drained with the worker's own code."""
    ours, theirs = stores.two_cores()
    drained: list[float] = []
    accepted: list[float] = []
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(stores.postgres_server(directory))
        version = stores.postgres_version(postgres)
        for name in ("http", "drained"):
            upgrade(stores.new_database(postgres, name))
        served = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary, core=theirs))
        target = await stack.enter_async_context(
            http_holds.flashhold(directory, served, postgres.database_url("http"), ours)
        )
        filled = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary))
        engine = await stack.enter_async_context(use.engine_on(filled))
        client = stack.enter_context(redis.Redis.from_url(filled.url))
        for _ in range(size.repetitions):
            accepted.append((await http_holds.accept(target, size.http, theirs)).per_second(201))
            await use.hold_in_bulk(engine, use.holds(size.entries))
            drained.append(await asyncio.to_thread(_drain, client, postgres.database_url("drained"), size.entries))
            use.trim_journal(client)
    found = ratio(drained, accepted)
    told = {"entries_per_s": found.above, "HTTP_holds_per_s": found.below, "spread": found.spread}
    name = "write-behind: entries/s into Postgres ÷ HTTP holds/s"
    return [at_least(name, found.quotient, BAR, "disk", f"{filled.name}, {version}", **told)]


def _drain(client: "redis.Redis", database_url: str, entries_min: int) -> float:
    """Entries a second. Raises RuntimeError if fewer than were made came into the ledger."""
    partition = EngineOptions().partition
    worker = WriteBehind(Journal(client, partition), LedgerWriter(database_url, partition, holder="bench"))
    try:
        done = worker.drain()
    finally:
        worker.close()
    if done.entries < entries_min:
        raise RuntimeError(f"{done.entries} entries reached the ledger, of {entries_min}")
    return done.entries / done.seconds
