"""The rolling audit closes the partition after every kind of foreign write, and nothing else makes it do so."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from flashhold.domain import commands
from flashhold.domain.model import Line
from flashhold.engine.engine import Engine
from flashhold.engine.options import EngineOptions
from flashhold.services.gauges import WorkerGauges
from flashhold.services.recovery import restore_by_hand
from flashhold.services.rolling_audit import RollingAudit, RollingOptions
from tests.ledger.tables import rows
from tests.lua.watching import watched
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


async def rounds_of(rolling: RollingAudit, rounds: int, seconds: float = 60) -> None:
    """Wait until it has made so many."""
    async with asyncio.timeout(seconds):
        while rolling.rounds < rounds:  # noqa: ASYNC110  # it goes on by itself
            await asyncio.sleep(0.05)


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


async def test_a_store_that_is_behind_is_left_to_recovery(one_redis_url: str, database_url: str) -> None:
    """An old copy was put back: recovery mends that by itself, and a partition that the audit closed needs someone."""
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.trade()
        copy = {key: shop.client.dump(key) for key in shop.client.keys("{p00}:*")}
        await shop.hold(Line("shoe", 1), buyer="ann")
        shop.writing.drain()
        for key, value in copy.items():
            shop.client.restore(key, 0, value, replace=True)
        async with await Engine.connect(one_redis_url) as engine:  # one that has not been shown what is lost
            rolling = RollingAudit(engine, database_url, options=FAST, gauges=WorkerGauges())
            for _ in range(20):
                await rolling.step()
            rolling.close()
        assert halted(shop) is None


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


async def crowd(shop: Shop, holds: int, *lines: Line) -> None:
    """Live holds by the thousand, in the ledger too."""
    for sku in {line.sku for line in lines}:
        await shop.engine.move("receipt", sku, 1_000_000, key=shop.key())
    await shop.engine.submit_many([commands.Hold(shop.key(), lines, ttl_ms=600_000 + n) for n in range(holds)])
    shop.writing.drain()


async def test_it_takes_its_share_of_the_store_and_no_more(one_redis_url: str, database_url: str) -> None:
    """After every call it rests for 49 times what that took: 2 % of the time, by its own count and by the server's."""
    options = RollingOptions(rest_max_ms=60_000, hold_max_us=1_000_000, round_min_ms=0)
    async with open_shop(one_redis_url, database_url) as shop:
        await crowd(shop, 3_000, Line("shoe", 1))
        shop.client.config_resetstat()
        began, before_s = time.monotonic(), shop.engine.survey.spent_s
        async with audited(shop, options) as rolling:
            await rounds_of(rolling, 2)
        allowed_s = 0.02 * (time.monotonic() - began) + 0.01  # the last call has not rested yet
        told: Any = shop.client.info("commandstats")
        scripts = [told[name] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in told]
        assert sum(script["calls"] for script in scripts) > 50
        assert shop.engine.survey.spent_s - before_s <= allowed_s
        assert sum(script["usec"] for script in scripts) / 1e6 <= allowed_s


def test_many_partitions_take_the_share_of_one() -> None:
    """Sixteen audits that each rest for 799 times what they took take an 800th each: a fiftieth together."""
    one, each = RollingOptions(), RollingOptions().shared_by(16)
    assert 16 / (each.rests + 1) == 1 / (one.rests + 1) == 0.02
    assert each.hold_max_us / 16 == one.hold_max_us  # each has a sixteenth of the holds
    assert RollingOptions().shared_by(1) == one


async def test_a_round_that_is_behind_does_not_rest(one_redis_url: str, database_url: str) -> None:
    """What the store took to answer never makes a round late: its time for each hold comes before its share."""
    options = RollingOptions(rests=100_000, rest_max_ms=5_000, hold_max_us=100, round_min_ms=0)
    async with open_shop(one_redis_url, database_url) as shop:
        await crowd(shop, 2_000, Line("shoe", 1))
        async with audited(shop, options) as rolling:
            await rounds_of(rolling, 1)
        # Some forty calls, each of which would rest for five seconds.
        assert rolling.gauges.audit_round_seconds._value.get() < 15


async def test_no_call_asks_for_much(one_redis_url: str, database_url: str) -> None:
    """Holds of a hundred lines are looked at two at a time: what a call costs is bounded, whatever the holds are."""
    async with open_shop(one_redis_url, database_url) as shop:
        await crowd(shop, 20, *(Line(f"sku {n}", 1) for n in range(100)))
        with watched(one_redis_url) as touched:
            async with audited(shop) as rolling:
                await rounds_of(rolling, 1)
        assert halted(shop) is None
        assert max(arguments for command, arguments in touched.calls if command in ("HMGET", "ZMSCORE")) <= 201


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
