"""A million holds that end at one moment: how soon all are given back, whether one was early, what buyers feel.

New holds come at a fixed rate before and during it, half of them on the same SKU. A late answer is counted from when
its request was due, so that a stall is felt by everyone who would have come while it lasted.
"""

import asyncio
import itertools
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import redis

from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain.commands import Hold
from flashhold.domain.idempotency import parse_hold_id
from flashhold.domain.model import DEFAULT_POOL
from flashhold.embedded.binaries import RedisBinary
from flashhold.engine.codec import unpack
from flashhold.engine.journal import Journal, decode_batch
from flashhold.engine.keys import partition_keys
from loadtests import stores
from loadtests.bench import engine_use as use
from loadtests.bench import sweeper
from loadtests.bench.figures import Figure, at_most
from loadtests.tally import percentile

BAR_SECONDS = 30
BAR_EARLY = 0
BAR_P99 = 3
OTHER_SKU = "CALM-2026-WHITE-40"


@dataclass(frozen=True)
class Size:
    holds: int = 1_000_000
    per_second: int = 200
    """New holds, before and during."""
    calm_seconds: float = 15.0
    patience_seconds: float = 180.0
    """After the deadline: longer than any figure worth printing."""


class Promised(NamedTuple):
    """The deadlines that the holds were given, by the seq that made them (0: another entry's). `others`: holds that
    live on."""

    by_seq: "array[int]"
    first_ms: int
    last_ms: int
    others: int


class Given(NamedTuple):
    """What the journal says of how the holds ended."""

    ended: int
    early: int
    doubled: int
    last_ms: int


class Felt(NamedTuple):
    """Seconds that each new hold waited for its answer."""

    calm: list[float]
    meanwhile: list[float]


async def measure(directory: Path, size: Size = Size(), binary: RedisBinary | None = None) -> list[Figure]:
    ours, theirs = stores.two_cores()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(stores.redis_server(directory, durable=True, binary=binary, core=theirs))
        engine = await stack.enter_async_context(use.engine_on(server, (use.SKU, OTHER_SKU)))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        stack.enter_context(sweeper.running(server.url, directory, core=ours))
        stack.enter_context(use.on_core(ours))
        promised = await _fill(engine, client, size)
        newcomers = _Newcomers(engine, size.per_second)
        calm = await newcomers.come_while(lambda: time.time() < promised.first_ms / 1e3 - 0.5, size.patience_seconds)
        await asyncio.sleep(max(0.0, promised.first_ms / 1e3 - time.time()))
        meanwhile = await newcomers.come_while(
            lambda: _alive(client) > promised.others + newcomers.accepted, size.patience_seconds
        )
        given = _given_back(Journal(client, engine.partition), promised)
    if given.ended != size.holds or given.doubled:
        raise RuntimeError(f"{given.ended} of {size.holds} holds were given back, {given.doubled} of them twice")
    return _figures(size, server.name, promised, given, Felt(calm, meanwhile))


def _figures(size: Size, server: str, promised: Promised, given: Given, felt: Felt) -> list[Figure]:
    seconds = (given.last_ms - promised.last_ms) / 1e3
    calm_ms, meanwhile_ms = percentile(felt.calm, 0.99) * 1e3, percentile(felt.meanwhile, 0.99) * 1e3
    where = ("disk", server)
    title = f"deadline: {size.holds:,} holds with one deadline"
    return [
        at_most(f"{title}, seconds until all are given back", seconds, BAR_SECONDS, *where, holds=given.ended),
        at_most(f"{title}, given back early", given.early, BAR_EARLY, *where, holds=given.ended),
        at_most(
            f"{title}, p99 of new holds meanwhile ÷ calm",
            meanwhile_ms / calm_ms,
            BAR_P99,
            *where,
            meanwhile_ms=meanwhile_ms,
            calm_ms=calm_ms,
            new_holds_meanwhile=len(felt.meanwhile),
            new_holds_calm=len(felt.calm),
        ),
    ]


async def _fill(engine: Engine, client: "redis.Redis", size: Size) -> Promised:
    """Holds that all end when a calm phase after the last of them is over. Raises RuntimeError if that was too soon."""
    probe = min(20_000, size.holds)
    rate = probe / await use.hold_in_bulk(engine, use.holds(probe, OTHER_SKU, ttl_ms=86_000_000))
    deadline = time.time() + 1.7 * size.holds / rate + size.calm_seconds + 1.0
    by_seq = array("q")
    commands = _ending_at(deadline, size.holds)
    while chunk := list(itertools.islice(commands, 4 * use.BULK)):
        for hold in use.accepted(await engine.submit_many(chunk)):
            by_seq.extend([0] * (hold.seq + 1 - len(by_seq)))
            by_seq[hold.seq] = hold.expires_at_ms
    use.trim_journal(client)
    if time.time() + size.calm_seconds > deadline:
        raise RuntimeError("The holds were not made before their deadline came: the machine slowed down meanwhile")
    return Promised(by_seq, min(filter(None, by_seq)), max(by_seq), _alive(client) - size.holds)


def _ending_at(deadline: float, count: int) -> Iterator[Hold]:
    """Holds that ask for the ttl that is left until `deadline` (seconds since 1970) when they are made."""
    run = uuid.uuid4().hex
    lines = (Line(use.SKU, 1),)
    for number in range(count):
        ttl_ms = max(1, int((deadline - time.time()) * 1e3))
        yield Hold(f"{run}-{number:03d}", lines, f"buyer-{number}", ttl_ms)


class _Newcomers:
    """New holds at a fixed rate, whatever became of the ones before."""

    def __init__(self, engine: Engine, per_second: int) -> None:
        self.accepted = 0
        self._engine = engine
        self._pause = 1 / per_second
        self._run = uuid.uuid4().hex
        self._number = 0

    async def come_while(self, busy: Callable[[], bool], seconds_max: float) -> list[float]:
        """Until `busy` says no; it is asked ten times a second. Seconds that each waited."""
        waits: list[float] = []
        async with asyncio.TaskGroup() as under_way:
            began = due = asked = time.perf_counter()
            while due < began + seconds_max:
                under_way.create_task(self._hold(due, waits))
                due += self._pause
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if due - asked > 0.1:
                    asked = due
                    if not busy():
                        break
        return waits

    async def _hold(self, due: float, waits: list[float]) -> None:
        self._number += 1
        line = Line((use.SKU, OTHER_SKU)[self._number % 2], 1)
        outcome = await self._engine.hold(key=f"{self._run}-{self._number}", lines=(line,), ttl_ms=86_000_000)
        if type(outcome) is not Applied:
            raise RuntimeError(f"A new hold was refused: {outcome}")
        self.accepted += 1
        waits.append(time.perf_counter() - due)


def _alive(client: "redis.Redis") -> int:
    """Units held, one a hold: those with a deadline to come or not yet swept."""
    pools = [f"{sku}\0{DEFAULT_POOL}" for sku in (use.SKU, OTHER_SKU)]
    counters: Any = client.hmget(partition_keys(EngineOptions().partition).stock, pools)
    return sum(unpack(raw)[2] for raw in counters)


def _given_back(journal: Journal, promised: Promised) -> Given:
    """Read the journal from where the filling ended: every `expire` entry against the deadline that was promised."""
    seen = bytearray(len(promised.by_seq))
    ended = early = doubled = last_ms = 0
    place = "0"
    while batches := journal.read(place, 256, 0):
        place = batches[-1].stream_id
        for entry in itertools.chain.from_iterable(map(decode_batch, batches)):
            if entry.kind != "expire":
                continue
            parsed = parse_hold_id(entry.hold or "")
            assert parsed is not None, entry
            made_seq = parsed[2]
            ended += 1
            early += entry.at_ms < promised.by_seq[made_seq]
            doubled += seen[made_seq]
            seen[made_seq] = 1
            last_ms = max(last_ms, entry.at_ms)
    return Given(ended, early, doubled, last_ms)
