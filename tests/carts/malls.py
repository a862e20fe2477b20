"""A mall: several partitions on one store, each with its own engine and ledger, and carts over them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg

from flashhold import Engine, Line
from flashhold.domain import commands
from flashhold.domain.idempotency import is_cart
from flashhold.domain.model import Hold
from flashhold.domain.outcomes import Applied, Outcome
from flashhold.engine.address import blocking_client
from flashhold.engine.carts import Carts
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from flashhold.engine.keys import partition_keys
from flashhold.engine.options import EngineOptions
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.audit import audit
from flashhold.services.recovery import restore_by_hand
from flashhold.services.write_behind import WriteBehind

PARTITIONS = ("p00", "p01", "p02")
SKUS = {"apple": "p00", "pear": "p01", "plum": "p02", "fig": "p01"}
"""Where each SKU is: the first two letters of an alphabet of three partitions are enough to go wrong in."""


class Mall:
    """`fresh()` gives carts as another process has them: nothing is kept in between."""

    def __init__(self, engines: Mapping[str, Engine], url: str, database_url: str | None) -> None:
        self.url = url
        self.engines = dict(engines)
        self.clients = {name: blocking_client(url, name) for name in PARTITIONS}
        self.client = self.clients["p00"]
        """Of all partitions, where they are on one server."""
        self.database_url = database_url
        self.carts = Carts(self.engines)
        self.writing = [self._writing(name) for name in (PARTITIONS if database_url else ())]

    async def stock(self, units: int, **policy: Any) -> None:
        """So many units of every SKU, and one policy for all."""
        for sku, partition in SKUS.items():
            await self.engines[partition].move("receipt", sku, units, key=f"stock-{sku}")
            if policy:
                await self.engines[partition].set_policy(sku, policy, replace=True)

    async def hold(self, key: str, *lines: Line, carts: Carts | None = None, **more: Any) -> Outcome[Hold]:
        """A cart, each line of it in its SKU's partition."""
        return await (carts or self.carts).hold(commands.Hold(key, lines, **more), groups_of(lines))

    async def held(self, key: str, *lines: Line, **more: Any) -> Hold:
        """A cart that must be granted."""
        outcome = await self.hold(key, *lines, **more)
        assert isinstance(outcome, Applied), outcome
        return outcome.value

    async def commit(self, hold: str, **more: Any) -> Outcome[Hold]:
        return await self.carts.commit(commands.Commit(hold, **more))

    async def release(self, hold: str, **more: Any) -> Outcome[Hold]:
        return await self.carts.release(commands.Release(hold, **more))

    async def counters(self) -> dict[str, tuple[int, int, int]]:
        """(available, held, committed) of every SKU."""
        found = {}
        for sku, partition in SKUS.items():
            outcome = await self.engines[partition].read_stock(sku)
            assert isinstance(outcome, Applied), outcome
            found[sku] = (outcome.value.available, outcome.value.held, outcome.value.committed)
        return found

    async def firsts(self) -> list[Hold]:
        """The first holds of all carts, as their stores have them now."""
        assert self.database_url is not None, "they are found in the ledger"
        self.write_down()
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute("SELECT partition, hold FROM entries WHERE kind = 'hold'").fetchall()
        found = []
        for partition, hold in rows:
            if is_cart(hold):
                outcome = await self.engines[partition].read_hold(hold)
                assert isinstance(outcome, Applied), outcome
                found.append(outcome.value)
        return found

    async def pass_time(self, ms: int) -> None:
        """So much later, in every partition."""
        for name, engine in self.engines.items():
            self.clients[name].hset(partition_keys(name).meta, "clock", (await engine.place()).clock_ms + ms)

    async def rebuild(self, partition: str) -> None:
        """The partition's store from the ledger, as by hand."""
        assert self.database_url is not None, "it is rebuilt from the ledger"
        at = PARTITIONS.index(partition)
        self.writing[at].close()
        options = EngineOptions(partition=partition, durability=Durability.MEMORY)
        await asyncio.to_thread(restore_by_hand, self.url, self.database_url, options, leave=True)
        self.writing[at] = self._writing(partition)

    def _writing(self, partition: str) -> WriteBehind:
        assert self.database_url is not None, "there is a ledger to write"
        return WriteBehind(
            Journal(self.clients[partition], partition), LedgerWriter(self.database_url, partition, holder="mall")
        )

    def write_down(self) -> None:
        """All journals into the ledger."""
        for one in self.writing:
            one.drain()

    async def differences(self) -> list[Any]:
        """What the audits of all partitions find."""
        assert self.database_url is not None, "an audit needs a ledger"
        self.write_down()
        reports = [await audit(engine, self.database_url, patience_s=0.2) for engine in self.engines.values()]
        return [difference for report in reports for difference in report.differences]


def groups_of(lines: tuple[Line, ...]) -> dict[str, tuple[Line, ...]]:
    """The lines by partition."""
    groups: dict[str, tuple[Line, ...]] = {}
    for line in lines:
        groups[SKUS[line.sku]] = (*groups.get(SKUS[line.sku], ()), line)
    return groups


@asynccontextmanager
async def open_mall(redis_url: str, database_url: str | None = None, **options: Any) -> AsyncIterator[Mall]:
    """A mall on an empty store and a fresh ledger."""
    chosen = EngineOptions(**{"durability": Durability.MEMORY, **options})
    async with AsyncExitStack() as stack:
        engines = {}
        for name in PARTITIONS:
            mine = dataclasses.replace(chosen, partition=name)
            engines[name] = await stack.enter_async_context(await Engine.connect(redis_url, options=mine))
            await engines[name].install()
        mall = Mall(engines, redis_url, database_url)
        try:
            yield mall
        finally:
            await mall.carts.drain()
            for one in mall.writing:
                one.close()
            for client in mall.clients.values():
                client.close()
