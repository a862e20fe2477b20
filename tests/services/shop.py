"""A shop between both stores: an engine, the write-behind behind it, and the audit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis

from flashhold import Engine, EngineOptions
from flashhold.domain.errors import Recovering, StoreUnavailable
from flashhold.domain.model import Hold, Line
from flashhold.domain.outcomes import Applied
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from flashhold.engine.keys import partition_keys
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.audit import Report, audit
from flashhold.services.write_behind import WriteBehind


class Shop:
    """What a test does in it, and what it can look at."""

    def __init__(self, engine: Engine, client: "redis.Redis", url: str, database_url: str) -> None:
        self.engine = engine
        self.client = client
        self.url = url
        self.keys = partition_keys("p00")
        self.database_url = database_url
        self.writing = WriteBehind(Journal(client, "p00"), LedgerWriter(database_url, "p00", holder="shop"))
        self._keys = 0

    def key(self) -> str:
        """A fresh idempotency key."""
        self._keys += 1
        return f"key-{self._keys}"

    async def hold(self, *lines: Line, **more: Any) -> Hold:
        """A hold that must be granted."""
        outcome = await self.engine.hold(key=self.key(), lines=lines, **more)
        assert isinstance(outcome, Applied), outcome
        return outcome.value

    async def expire(self) -> None:
        """Sweep until something was overdue."""
        while not (await self.engine.sweep()).expired:  # noqa: ASYNC110  # the store has no event for it
            await asyncio.sleep(0.001)

    async def trade(self) -> None:
        """Something of everything: every kind of entry, every fate of a hold, some of them still live."""
        engine = self.engine
        await engine.move("receipt", "shoe", 50, key=self.key(), reference="delivery 1")
        await engine.move("receipt", "sock 😀 {p00}", 40, key=self.key())
        await engine.move("receipt", "sock 😀 {p00}", 5, key=self.key(), pool="eu")
        await engine.set_policy("shoe", {"max_per_buyer": 9, "pools": {"default": {"safety_stock": 2}}}, replace=True)
        shoe, sock = Line("shoe", 2), Line("sock 😀 {p00}", 3)
        sold = await self.hold(shoe, sock, Line("shoe", 1), buyer="ann", metadata='{"gift":true}')
        await engine.commit(sold.id, reference="sale 1", lines=[Line("shoe", 3), Line(sock.sku, 1)])
        await engine.move("shipment", "shoe", 2, key=self.key(), reference="sale 1")
        await engine.move("cancel", "shoe", 1, key=self.key(), hold=sold.id)
        await engine.move("return", sock.sku, 1, key=self.key(), hold=sold.id)
        dropped = await self.hold(sock, buyer="bob")
        await engine.release(dropped.id, reason="changed mind", key=self.key())
        late = await self.hold(shoe, buyer="bob", ttl_ms=1)
        await self.expire()
        await engine.commit(late.id, reference="sale 2", reacquire=True)
        await self.hold(Line("shoe", 1), buyer="eve", ttl_ms=1)
        await self.expire()
        some = await self.hold(Line(sock.sku, 900), allow_partial=True)
        await engine.amend(some.id, lines=[Line(sock.sku, 7)])
        await engine.extend(some.id, ttl_ms=900_000)
        await engine.move("damage", sock.sku, 2, key=self.key(), reason="wet")
        await engine.move("adjustment", "shoe", -40, key=self.key(), reason="count")
        await engine.move("transfer", sock.sku, 2, key=self.key(), to_pool="eu")
        await self.hold(Line(sock.sku, 1), Line(sock.sku, 1, "eu"), buyer="ann")

    async def served(self, epoch: int, seconds: float = 20) -> None:
        """Wait until the partition decides under this epoch."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if (await self.engine.place()).epoch >= epoch:
                        return
                except (Recovering, StoreUnavailable):
                    pass
                await asyncio.sleep(0.02)

    async def audit(self) -> Report:
        """Write everything down, then audit."""
        self.writing.drain()
        return await audit(self.engine, self.database_url, patience_s=0.2)

    async def found(self) -> list[tuple[str, str]]:
        """The checks that find something, and where."""
        return [(difference.what, difference.where) for difference in (await self.audit()).differences]


@asynccontextmanager
async def open_shop(redis_url: str, database_url: str, **options: Any) -> AsyncIterator[Shop]:
    """A shop on an empty store and a fresh ledger."""
    chosen = EngineOptions(**{"durability": Durability.MEMORY, **options})
    with redis.Redis.from_url(redis_url) as client:
        async with await Engine.connect(redis_url, options=chosen) as engine:
            await engine.install()
            shop = Shop(engine, client, redis_url, database_url)
            try:
                yield shop
            finally:
                shop.writing.close()
