"""How fast one Python process gets holds on one hot SKU decided, against what the same server can do at all.

The measure of "at all" is `redis-benchmark -t incr`: 50 connections, one command in flight on each, written in C.
"""

import shutil
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from flashhold.embedded.binaries import RedisBinary
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_least, ratio

BAR_MEMORY = 1.0
BAR_DISK = 0.7


@dataclass(frozen=True)
class Size:
    holds: int = 60_000
    increments: int = 200_000
    increments_synced: int = 50_000
    """Fewer where each is fsynced: 50 connections share an fsync, and some disks take milliseconds for one."""
    tasks: int = 1_000
    repetitions: int = 5


@dataclass
class _Level:
    """One durability level: its server, its engine and what has been measured on them."""

    server: stores.Redis
    client: "redis.Redis"
    increments: list[float]
    in_bulk: list[float]
    one_each: list[float]


def increments_per_second(server: stores.Redis, count: int, core: int | None) -> float:
    """What `redis-benchmark` makes of INCR. Raises RuntimeError where it is not installed."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        raise RuntimeError("redis-benchmark is not installed; it comes with: apt-get install redis-tools")
    words = [program, "-p", str(server.port), "-t", "incr", "-c", "50", "-n", str(count), "--csv"]
    pinned = ["taskset", "-c", str(core), *words] if core is not None and shutil.which("taskset") else words
    told = subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=300).stdout
    for line in told.splitlines():
        name, _, rest = line.partition(",")
        if name.strip('"') == "INCR":
            return float(rest.split(",")[0].strip('"'))
    raise RuntimeError(f"redis-benchmark said nothing of INCR:\n{told}")


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    """Rounds of INCR, bulk and one-each, on a server of each level in turn."""
    ours, theirs = stores.two_cores()
    async with AsyncExitStack() as stack:
        levels = []
        for durable in (False, True):
            server = stack.enter_context(stores.redis_server(directory, durable=durable, binary=binary, core=theirs))
            client = stack.enter_context(redis.Redis.from_url(server.url))
            levels.append(_Level(server, client, [], [], []))
        with use.on_core(ours):
            for level in levels:
                async with use.engine_on(level.server) as engine:
                    await use.hold_in_bulk(engine, use.holds(size.holds // 4))  # warm: caches, allocator, tables
            for _ in range(size.repetitions):
                for level in levels:
                    await _round(level, size, ours)
    return _figures(*levels)


async def _round(level: _Level, size: Size, core: int | None) -> None:
    increments = size.increments_synced if level.server.durable else size.increments
    level.increments.append(increments_per_second(level.server, increments, core))
    # An empty store each time, as INCR has one key: what a million live holds add is another bench's figure.
    level.client.flushall()
    async with use.engine_on(level.server) as engine:
        level.in_bulk.append(size.holds / await use.hold_in_bulk(engine, use.holds(size.holds)))
        commands = use.holds(size.holds)
        level.one_each.append(size.holds / await use.hold_one_each(engine, commands, size.tasks))
    use.trim_journal(level.client)


def _figures(memory: _Level, disk: _Level) -> list[Figure]:
    """The bulk shape is held against the bars. At level disk INCR is that of the server which fsyncs nothing: the
    harder divisor; the other is shown as well."""
    figures = []
    for level, name, bar in ((memory, "memory", BAR_MEMORY), (disk, "disk", BAR_DISK)):
        bulk = ratio(level.in_bulk, memory.increments)
        each = ratio(level.one_each, memory.increments)
        told = {"holds_per_s": bulk.above, "INCR_per_s": bulk.below, "spread": bulk.spread}
        server = level.server.name
        figures.append(at_least("engine: hot SKU, submit_many ÷ INCR", bulk.quotient, bar, name, server, **told))
        told = {"holds_per_s": each.above, "INCR_per_s": each.below, "spread": each.spread}
        figures.append(at_least("engine: one await hold() a task ÷ INCR", each.quotient, None, name, server, **told))
    synced = ratio(disk.in_bulk, disk.increments)
    told = {"holds_per_s": synced.above, "INCR_per_s": synced.below, "spread": synced.spread}
    name = "engine: submit_many ÷ INCR, both fsynced"
    figures.append(at_least(name, synced.quotient, None, "disk", disk.server.name, **told))
    return figures
