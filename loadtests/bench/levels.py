"""What each level of durability costs: holds over HTTP, one API process and one worker, side by side.

The process under test has one core; its Redis, the replica, Postgres, the worker and the client share the other.
"""

import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from flashhold.embedded.binaries import RedisBinary
from flashhold.engine.durability import Durability
from loadtests import flashhold_server, http_load, stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_least, ratio
from loadtests.bench.http_holds import Size as HttpSize
from loadtests.bench.http_holds import Target, accept


@dataclass(frozen=True)
class Size(HttpSize):
    repetitions: int = 3


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    ours, theirs = stores.two_cores()
    taken: dict[Durability, list[http_load.Measured]] = {level: [] for level in Durability}
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(stores.postgres_server(directory))
        targets = {}
        for level in Durability:
            durable = level is not Durability.MEMORY
            server = stack.enter_context(stores.redis_server(directory, durable=durable, binary=binary, core=theirs))
            if level is Durability.REPLICA:
                _follow(stack.enter_context(stores.redis_server(directory, durable=True, core=theirs)), server)
            database = stores.new_database(postgres, f"level_{level}")
            where = (directory, server.url, database)
            url, token = stack.enter_context(flashhold_server.serve(*where, core=ours, level=level))
            stack.enter_context(flashhold_server.worker(*where, core=theirs))
            await stack.enter_async_context(use.engine_on(server))
            targets[level] = Target(url, token)
        for _ in range(size.repetitions):
            for level, target in targets.items():
                taken[level].append(await accept(target, size, theirs))
        name = server.name
    return [_figure(level, taken, name) for level in Durability]


def _follow(replica: stores.Redis, primary: stores.Redis) -> None:
    with redis.Redis.from_url(replica.url) as follower, redis.Redis.from_url(primary.url) as leader:
        follower.replicaof("127.0.0.1", primary.port)
        leader.set("follow", "me")
        while not leader.wait(1, 1_000):
            leader.set("follow", "me")
        leader.delete("follow")


def _figure(level: Durability, taken: dict[Durability, list[http_load.Measured]], server: str) -> Figure:
    rates = {each: [measured.per_second(201) for measured in all_of] for each, all_of in taken.items()}
    found = ratio(rates[level], rates[Durability.DISK])
    told = {
        "holds_per_s": found.above,
        "p50_ms": statistics.median(measured.p50_ms for measured in taken[level]),
        "p99_ms": statistics.median(measured.p99_ms for measured in taken[level]),
        "spread": found.spread,
    }
    return at_least(f"level {level}: HTTP holds/s ÷ level disk", found.quotient, None, level, server, **told)
