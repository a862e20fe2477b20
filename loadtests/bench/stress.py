"""Five times the load that one API process can serve: what is still served, and how soon the others are told.

Each round measures both, one after the other: the peak in a closed loop (nobody asks before he is served), then a
crowd that comes five times as fast (`open_load.py`) over a bounded number of connections. The process under test has
one core, its Redis and the crowd share the other, so the crowd sends less than it was offered to: what found no free
connection is printed too. Answers that are neither 201 nor 429 fail the bench, and so does a request without an answer.
"""

import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flashhold.embedded.binaries import RedisBinary
from loadtests import http_load, open_load, stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_least, at_most, ratio
from loadtests.bench.http_holds import Target, flashhold

BAR_GOODPUT = 0.8
BAR_REFUSED_MS = 100


@dataclass(frozen=True)
class Size:
    seconds: float = 3.0
    peak_connections: tuple[int, ...] = (64, 256)
    crowd_seconds: float = 0.15
    """The crowd's connections: as many as are served in that time, half as many again as may wait."""
    crowd_connections_min: int = 1_000
    """On a slow machine: twice what may always wait."""
    times: float = 5.0
    repetitions: int = 5


class Round(NamedTuple):
    """The best closed loop, and the crowd that came after it."""

    peak: float
    crowd: open_load.Crowded


class NoCrowd(RuntimeError):
    """Fewer came at a time than can be served: the machine has too little time for those who ask."""


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    ours, theirs = stores.two_cores()
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(stores.postgres_server(directory))
        redis_server = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary, core=theirs))
        database = stores.new_database(postgres, "stress")
        target = await stack.enter_async_context(flashhold(directory, redis_server, database, ours))
        rounds = [await _round(target, size, theirs) for _ in range(size.repetitions)]
    return _figures(size, redis_server.name, rounds)


async def _round(target: Target, size: Size, core: int | None) -> Round:
    peak = 0.0
    for connections in size.peak_connections:
        served = await http_load.run_apart(
            target.url, target.token, use.SKU, connections=connections, seconds=size.seconds, core=core
        )
        if set(served.statuses) != {201}:
            raise RuntimeError(f"{connections} connections in turn were answered {served.statuses}: {served.example}")
        peak = max(peak, served.per_second(201))
    crowd = await open_load.run_apart(
        target.url, target.token, use.SKU,
        per_second=size.times * peak, connections=max(size.crowd_connections_min, round(size.crowd_seconds * peak)),
        seconds=size.seconds, core=core,
    )  # fmt: skip
    if not set(crowd.statuses) <= {201, 429} or crowd.lost:
        raise RuntimeError(f"The crowd was answered {crowd.statuses}, {crowd.lost} not at all: {crowd.example}")
    return Round(peak, crowd)


def _figures(size: Size, server: str, rounds: list[Round]) -> list[Figure]:
    found = ratio([crowd.per_second(201) for _, crowd in rounds], [peak for peak, _ in rounds])
    title = f"stress: {size.times:g} times the load"
    crowds = [crowd for _, crowd in rounds]
    told = {
        "served_per_s": found.above,
        "peak_per_s": found.below,
        "offered_per_s": statistics.median(crowd.offered / crowd.seconds for crowd in crowds),
        "no_connection_free_per_s": statistics.median(crowd.turned_away / crowd.seconds for crowd in crowds),
        "served_p99_ms": statistics.median(crowd.p99_ms.get(201, 0.0) for crowd in crowds),
        "spread": found.spread,
    }
    refused = [crowd for crowd in crowds if 429 in crowd.statuses]
    if not refused:
        raise NoCrowd(f"Nobody was refused, so the crowd was no crowd: {told}")
    return [
        at_least(f"{title}, holds/s ÷ the peak", found.quotient, BAR_GOODPUT, "disk", server, **told),
        at_most(
            f"{title}, p99 of refusals, ms",
            statistics.median(crowd.p99_ms[429] for crowd in refused),
            BAR_REFUSED_MS,
            "disk",
            server,
            refused_per_s=statistics.median(crowd.per_second(429) for crowd in refused),
            slowest_ms=max(crowd.slowest_ms[429] for crowd in refused),
        ),
    ]
