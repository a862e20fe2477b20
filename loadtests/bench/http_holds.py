"""Holds over HTTP: one API process with every answer fsynced, against FastAPI doing nothing and the usual design.

The process under test has one core, its Redis and the client share the other, where there are two. Each round measures
all three one after the other.
"""

import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flashhold.embedded.binaries import RedisBinary
from loadtests import flashhold_server, http_load, stores
from loadtests.bench import engine_use as use
from loadtests.bench.figures import Figure, at_least, ratio

BAR_NOTHING = 2.0
BAR_USUAL = 5.0


@dataclass(frozen=True)
class Size:
    seconds: float = 3.0
    connections: int = 64
    repetitions: int = 5


class Target(NamedTuple):
    """Where to send holds."""

    url: str
    token: str


@asynccontextmanager
async def flashhold(
    directory: Path, redis_server: stores.Redis, database_url: str, core: int | None
) -> AsyncIterator[Target]:
    """`flashhold serve` with one process and a stocked SKU, on the caller's stores."""
    with flashhold_server.serve(directory, redis_server.url, database_url, core=core) as (url, token):
        async with use.engine_on(redis_server):
            yield Target(url, token)


async def accept(target: Target, size: Size, core: int | None) -> http_load.Measured:
    """Holds for `size.seconds`. Raises RuntimeError if one answer was not a 201: nothing else may be counted."""
    measured = await http_load.run_apart(
        target.url, target.token, use.SKU, connections=size.connections, seconds=size.seconds, core=core
    )
    if set(measured.statuses) != {201}:
        raise RuntimeError(f"{target.url} answered {measured.statuses}, e.g. {measured.example}")
    return measured


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    ours, theirs = stores.two_cores()
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(stores.postgres_server(directory))
        redis_server = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary, core=theirs))
        database = stores.new_database(postgres, "http")
        targets = {
            "FlashHold": await stack.enter_async_context(flashhold(directory, redis_server, database, ours)),
            "nothing": Target(_nothing(stack, directory, ours), "none"),
            "usual": Target(_usual(stack, directory, binary, ours, theirs), "none"),
        }
        taken: dict[str, list[http_load.Measured]] = {name: [] for name in targets}
        for _ in range(size.repetitions):
            for name, target in targets.items():
                taken[name].append(await accept(target, size, theirs))
    return _figures(taken, redis_server.name)


def _nothing(stack: ExitStack | AsyncExitStack, directory: Path, core: int | None) -> str:
    return stack.enter_context(stores.web_app("loadtests.bench.nothing_app:app", directory, {}, core=core))


def _usual(
    stack: ExitStack | AsyncExitStack,
    directory: Path,
    binary: RedisBinary | None,
    core: int | None,
    redis_core: int | None,
) -> str:
    own = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary, core=redis_core))
    environment = {"USUAL_REDIS_URL": own.url, "USUAL_SKU": use.SKU, "USUAL_UNITS": "1000000000"}
    return stack.enter_context(stores.web_app("loadtests.bench.usual_app:app", directory, environment, core=core))


def _figures(taken: dict[str, list[http_load.Measured]], server: str) -> list[Figure]:
    rates = {name: [measured.per_second(201) for measured in all_of] for name, all_of in taken.items()}
    p99_ms = {name: statistics.median(measured.p99_ms for measured in all_of) for name, all_of in taken.items()}
    figures = []
    for name, bar, title in (
        ("nothing", BAR_NOTHING, "HTTP: holds/s ÷ a FastAPI route that does nothing"),
        ("usual", BAR_USUAL, "HTTP: holds/s ÷ the usual design"),
    ):
        found = ratio(rates["FlashHold"], rates[name])
        told = {
            "holds_per_s": found.above,
            f"{name}_per_s": found.below,
            "p50_ms": statistics.median(measured.p50_ms for measured in taken["FlashHold"]),
            "p99_ms": p99_ms["FlashHold"],
            f"{name}_p99_ms": p99_ms[name],
            "spread": found.spread,
        }
        figures.append(at_least(title, found.quotient, bar, "disk", server, **told))
    return figures
