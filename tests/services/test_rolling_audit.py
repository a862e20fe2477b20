"""The rolling audit closes the partition after every kind of foreign write, and nothing else makes it do so."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from flashhold.domain.model import Line
from flashhold.engine.engine import Engine
from flashhold.engine.options import EngineOptions
from flashhold.services.gauges import WorkerGauges
from flashhold.services.recovery import restore_by_hand
from flashhold.services.rolling_audit import RollingAudit, RollingOptions
from tests.ledger.tables import rows
from tests.services.shop import Shop, open_shop

FAST = RollingOptions(counters_every_ms=100, rest_max_ms=5, round_min_ms=0)


@asynccontextmanager
async def audited(shop: Shop, options: RollingOptions = FAST) -> AsyncIterator[RollingAudit]:
    """The rolling audit of a shop, and a write-behind, for as long as the block lasts."""
    rolling = RollingAudit(shop.engine, shop.database_url, options=options, gauges=WorkerGauges())
    stop = asyncio.Event()

    def write() -> None:
        while not stop.is_set():
            shop.writing.turn(block=False)
            time.sleep(0.005)

    writing = asyncio.create_task(asyncio.to_thread(write))
    auditing = asyncio.create_task(rolling.run(stop))
    try:
        yield rolling
    finally:
        stop.set()
        await auditing
        await writing


def halted(shop: Shop) -> str | None:
    """Why the partition is closed."""
    reasons = rows(shop.database_url, "SELECT halted FROM partitions")
    return reasons[0][0] if reasons else None


async def closed(shop: Shop, seconds: float = 10) -> str:
    """Wait until the partition is closed; why."""
    async with asyncio.timeout(seconds):
        while not (reason := await asyncio.to_thread(halted, shop)):  # noqa: ASYNC110  # the ledger has no event for it
            await asyncio.sleep(0.05)
    return reason


def _hash(shop: Shop, key: str) -> dict[bytes, bytes]:
    """A whole hash, as it is stored."""
    stored: Any = shop.client.hgetall(key)
    return dict(stored)


def _first(shop: Shop, key: str) -> bytes:
    return next(field for field in _hash(shop, key) if b"\0" in field)


def _garbage(shop: Shop) -> None:
    shop.client.hset(shop.keys.stock, _first(shop, shop.keys.stock), b"\x90")


def _counter(shop: Shop, place: int = 1) -> None:
    field = _first(shop, shop.keys.stock)
    counters = msgspec.msgpack.decode(_hash(shop, shop.keys.stock)[field])
    counters[place] += 1
    shop.client.hset(shop.keys.stock, field, msgspec.msgpack.encode(counters))


def _limit(shop: Shop) -> None:
    rules = msgspec.msgpack.decode(_hash(shop, shop.keys.stock)[b"shoe"])
    rules[2] += 1
    shop.client.hset(shop.keys.stock, b"shoe", msgspec.msgpack.encode(rules))


def _record(shop: Shop, states: bytes) -> bytes:
    records = _hash(shop, shop.keys.holds)
    return next(field for field, value in sorted(records.items()) if value[0] in states)


def _flip_record(shop: Shop) -> None:
    field = _record(shop, b"\0")
    value = _hash(shop, shop.keys.holds)[field]
    at = value.index(b"sock") + len("sock \N{GRINNING FACE} {p00}".encode()) + len(b"\xa7default")
    spoilt = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    shop.client.hset(shop.keys.holds, field, spoilt)


WRITES: dict[str, tuple[Callable[[Shop], object], str]] = {
    "del-stock": (lambda shop: shop.client.delete(shop.keys.stock), "store: "),
    "del-holds": (lambda shop: shop.client.delete(shop.keys.holds), "found nothing"),
    "del-due": (lambda shop: shop.client.delete(shop.keys.due), "deadline: "),
    "del-wake": (lambda shop: shop.client.delete(shop.keys.wake), "deadline: "),
    "zpop-due": (lambda shop: shop.client.zpopmax(shop.keys.due), "deadline: "),
    "garbage": (_garbage, "garbage: "),
    "counter": (_counter, "store: "),
    "number": (lambda shop: _counter(shop, 0), "number: "),
    "limit": (_limit, "policy: shoe, max_per_buyer: expected 9, found 10"),
    "hdel-pool": (lambda shop: shop.client.hdel(shop.keys.stock, _first(shop, shop.keys.stock)), "store: "),
    "hdel-sku": (lambda shop: shop.client.hdel(shop.keys.stock, b"shoe"), "policy: shoe: expected a SKU, found none"),
    "hdel-live": (lambda shop: shop.client.hdel(shop.keys.holds, _record(shop, b"\0")), "found nothing"),
    "hdel-ended": (lambda shop: shop.client.hdel(shop.keys.holds, _record(shop, b"\1\2\3")), "found nothing"),
    "hdel-answer": (lambda shop: shop.client.hdel(shop.keys.holds, _record(shop, b"\x08")), "found nothing"),
    "garbage-record": (
        lambda shop: shop.client.hset(shop.keys.holds, _record(shop, b"\0"), b"\0rubbish"),
        "found what no script wrote",
    ),
    "flipped-record": (_flip_record, "hold made at"),
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_foreign_write_closes_the_partition_and_a_restore_mends_it(
    name: str, one_redis_url: str, database_url: str
) -> None:
    """Found, named and closed by the rolling audit; found by the audit; after a restore both find nothing any more."""
    write, words = WRITES[name]
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.trade()
        async with audited(shop) as rolling:
            await asyncio.sleep(0.4)
            assert halted(shop) is None
            write(shop)
            assert words in await closed(shop)
            assert rolling.gauges.audit_findings._value.get() >= 1
        assert not (await shop.audit()).clean
        shop.writing.close()
        restored = await asyncio.to_thread(
            restore_by_hand, one_redis_url, database_url, EngineOptions(partition="p00"), leave=True
        )
        assert restored.restored is not None and restored.restored.missing is None
    async with await Engine.connect(
        one_redis_url, options=EngineOptions(durability=shop.engine._options.durability)
    ) as engine:
        again = Shop(engine, shop.client, one_redis_url, database_url)
        try:
            assert (await again.audit()).differences == []
            async with audited(again):
                await asyncio.sleep(0.5)
            assert halted(again) is None
        finally:
            again.writing.close()


async def test_a_busy_shop_stays_open(one_redis_url: str, database_url: str) -> None:
    """Holds of every fate, limits that change, a sweeper, forgetting after a moment: no round finds anything."""
    options = {"retention_ms": 300, "refused_retention_ms": 100}
    async with open_shop(one_redis_url, database_url, **options) as shop:
        await shop.trade()
        async with audited(
            shop, RollingOptions(counters_every_ms=200, rest_max_ms=1, page_holds=20, round_min_ms=0)
        ) as rolling:
            began = time.monotonic()
            rounds = number = 0
            while time.monotonic() < began + 5 or (rounds < 2 and time.monotonic() < began + 40):
                number += 1
                await shop.engine.move("receipt", "shoe", 5, key=shop.key())
                fates = [
                    await shop.hold(Line("shoe", 1), buyer=f"buyer {number}", ttl_ms=50 + 200 * at) for at in range(5)
                ]
                await shop.engine.hold(key=shop.key(), lines=[Line("shoe", 10_000)], buyer="eve")
                await shop.engine.extend(fates[1].id, ttl_ms=1_000, key=shop.key())
                await shop.engine.amend(fates[2].id, lines=[Line("shoe", 2)])
                await shop.engine.commit(fates[3].id, reference=f"sale {number}")
                await shop.engine.release(fates[4].id)
                await shop.engine.set_policy("shoe", {"hold_ttl_ms": 10_000 + number}, replace=False)
                await shop.engine.sweep()
                rounds = rolling.rounds
            assert halted(shop) is None
            assert rounds >= 2
        assert number > 10
        assert (await shop.audit()).differences == []


async def test_only_who_writes_the_ledger_audits(one_redis_url: str, database_url: str) -> None:
    """A stand-by closes nothing, and raises no alarm about rounds that it does not make."""
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.trade()
        rolling = RollingAudit(shop.engine, database_url, options=FAST, leads=lambda: False)
        shop.writing.drain()
        _counter(shop)
        for _ in range(20):
            await rolling.step()
        rolling.close()
        assert halted(shop) is None
        assert rolling.age_s() < 1
