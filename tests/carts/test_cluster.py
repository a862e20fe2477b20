"""Carts over several partitions of a real cluster while its primaries are killed."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from flashhold import Line
from flashhold.domain import carts
from flashhold.domain.errors import FlashHoldError
from flashhold.domain.model import HoldState
from flashhold.domain.outcomes import Applied, Outcome
from flashhold.engine.durability import Durability
from flashhold.services.carts import CartFollower
from tests.carts.malls import SKUS, Mall, open_mall
from tests.carts.test_dying import settle
from tests.cluster.nodes import LocalCluster, running_cluster
from tests.conftest import REDIS_BINARIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BUYERS, STOCK, SECONDS = 16, 100_000, 12.0


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Of the kind of server that every machine has."""
    with running_cluster(next(one for kind, one in REDIS_BINARIES.items() if kind.startswith("valkey"))) as made:
        yield made


async def insisted(ask: Callable[[], Awaitable[Outcome[Any]]]) -> Outcome[Any]:
    """Repeated until there is an answer."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except FlashHoldError:
                await asyncio.sleep(0.05)


class Buyers:
    """What they were told: the holds of their keys, and the sales."""

    def __init__(self, mall: Mall) -> None:
        self.mall = mall
        self.chance = random.Random(11)
        self.held: dict[str, Any] = {}
        self.wanted: dict[str, tuple[Line, ...]] = {}
        self.sold: dict[str, Any] = {}

    async def buy(self, number: int, over: asyncio.Event) -> None:
        bought = 0
        while not over.is_set():
            bought += 1
            key = f"key-{number}-{bought}"
            self.wanted[key] = tuple(Line(sku, 1) for sku in self.chance.sample(["apple", "plum", "pear"], 3))
            try:
                outcome = await self.mall.hold(key, *self.wanted[key], ttl_ms=600_000)
            except FlashHoldError:
                if self.chance.random() < 0.3:
                    continue  # and never asks again
                outcome = await insisted(lambda key=key: self.mall.hold(key, *self.wanted[key], ttl_ms=600_000))
            assert isinstance(outcome, Applied), outcome
            self.held[key] = outcome.value
            if bought % 3:
                hold = outcome.value.id
                sold = await insisted(lambda hold=hold, key=key: self.mall.commit(hold, reference=key))
                assert isinstance(sold, Applied), sold
                self.sold[hold] = sold.value


async def test_carts_while_primaries_are_killed(cluster: LocalCluster, database_url: str) -> None:
    """At level `replica` no cart that was told as held or sold is lost, every key keeps its answer, and once deadlines
    have passed the units of every partition are those of the carts that were sold."""
    async with open_mall(cluster.url, database_url, durability=Durability.REPLICA) as mall:
        await mall.stock(STOCK)
        buyers, over = Buyers(mall), asyncio.Event()
        followers = [CartFollower(mall.engines, database_url, grace_ms=300) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            for number in range(BUYERS):
                tasks.create_task(buyers.buy(number, over))
            for follower in followers:
                tasks.create_task(follower.run(over))
            tasks.create_task(write_on(mall, over))
            for partition in ("p00", "p02"):
                await asyncio.sleep(SECONDS / 4)
                primary = cluster.primary_of(partition)
                replica = cluster.replica_of(primary)
                primary.kill()
                await asyncio.to_thread(cluster.until_promoted, replica)
                await asyncio.sleep(SECONDS / 4)
                await asyncio.to_thread(primary.start)
                await asyncio.to_thread(cluster.until_whole)
            over.set()
        assert len(buyers.sold) > 50, "too little was sold to show anything"
        for key, hold in buyers.held.items():
            again = await insisted(lambda key=key: mall.hold(key, *buyers.wanted[key], ttl_ms=600_000))
            assert again == Applied(hold, replayed=True)
        await mall.pass_time(3_600_000)
        firsts = await mall.firsts()
        await settle(mall)
        assert all(first.state != HoldState.HELD for first in firsts)
        sold = {first.id: carts.shown(first) for first in firsts if first.state == HoldState.COMMITTED}
        assert sold == buyers.sold
        units = len(sold)
        left = {sku: (STOCK - units, 0, units) if sku != "fig" else (STOCK, 0, 0) for sku in SKUS}
        assert await mall.counters() == left
        assert await mall.differences() == []


async def write_on(mall: Mall, over: asyncio.Event) -> None:
    """The write-behinds of a worker."""
    while not over.is_set():
        for one in mall.writing:
            with contextlib.suppress(FlashHoldError):
                await asyncio.to_thread(one.drain)
        await asyncio.sleep(0.05)
