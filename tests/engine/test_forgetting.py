"""Keys are remembered for as long as promised, and then really forgotten: nothing in the store grows for ever."""

from collections.abc import AsyncIterator

import pytest_asyncio
import redis

from flashhold import Applied, Engine, EngineOptions, HoldState, Line, Reason, Refused
from flashhold.engine.keys import partition_keys
from tests.engine.proof import counters_agree, whole_journal

ONE = [Line("shoe", 1)]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
KEYS = partition_keys("p00")


class Shop:
    """An engine and a clock that can be moved."""

    def __init__(self, engine: Engine, store: "redis.Redis") -> None:
        self.engine, self.store = engine, store

    async def pass_time(self, ms: int) -> None:
        """By the store's high-water mark; then let a sweeper tidy up all there is."""
        await self.engine.read_stock("shoe")
        clock_ms = (await self.engine.place()).clock_ms
        self.store.hset(KEYS.meta, "clock", clock_ms + ms)
        while (await self.engine.sweep()).more:
            pass

    def records(self) -> int:
        """Holds and answers in the store's memory."""
        return int(self.store.hlen(KEYS.holds))


@pytest_asyncio.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    """Ten shoes, and the default times: a day for what was accepted, an hour for what was refused."""
    with redis.Redis.from_url(redis_url) as store:
        async with await Engine.connect(redis_url, options=EngineOptions(hold_ttl_max_ms=30 * DAY_MS)) as engine:
            await engine.install()
            await engine.move("receipt", "shoe", 10, key="stock")
            yield Shop(engine, store)


async def test_a_hold_is_remembered_for_a_day_after_its_end(shop: Shop) -> None:
    """Its key answers until then; afterwards the hold is unknown and the key is free, for a hold with another id."""
    made = await shop.engine.hold(key="cart", lines=ONE)
    await shop.engine.commit(made.value.id, reference="order-1")
    await shop.pass_time(DAY_MS - 10_000)
    assert await shop.engine.hold(key="cart", lines=ONE) == Applied(made.value, replayed=True)
    await shop.pass_time(10_001)
    assert (await shop.engine.read_hold(made.value.id)).reason is Reason.UNKNOWN_HOLD
    fresh = await shop.engine.hold(key="cart", lines=ONE)
    assert not fresh.replayed
    assert fresh.value.id != made.value.id
    assert (await shop.engine.read_hold(made.value.id)).reason is Reason.UNKNOWN_HOLD
    assert (await shop.engine.release(made.value.id)).reason is Reason.UNKNOWN_HOLD


async def test_a_live_hold_is_never_forgotten(shop: Shop) -> None:
    """However long it lives and whatever is swept meanwhile."""
    made = await shop.engine.hold(key="cart", lines=ONE, ttl_ms=20 * DAY_MS)
    await shop.pass_time(19 * DAY_MS)
    assert await shop.engine.hold(key="cart", lines=ONE, ttl_ms=20 * DAY_MS) == Applied(made.value, replayed=True)
    assert (await shop.engine.commit(made.value.id)).value.state is HoldState.COMMITTED


async def test_a_refusal_is_remembered_for_an_hour(shop: Shop) -> None:
    """Within it the answer stays, after it the key is asked anew."""
    refused = await shop.engine.hold(key="greedy", lines=[Line("shoe", 11)])
    await shop.pass_time(HOUR_MS - 10_000)
    again = await shop.engine.hold(key="greedy", lines=[Line("shoe", 11)])
    assert again == refused._replace(replayed=True)
    await shop.engine.move("receipt", "shoe", 1, key="one-more")
    await shop.pass_time(10_001)
    assert isinstance(await shop.engine.hold(key="greedy", lines=[Line("shoe", 11)]), Applied)


async def test_keys_about_a_hold_are_remembered_until_a_day_after_its_end(shop: Shop) -> None:
    """The key of an extension lasts as long as its hold does, and a day more; not a day from the extension."""
    made = await shop.engine.hold(key="cart", lines=ONE, ttl_ms=DAY_MS)
    extended = await shop.engine.extend(made.value.id, ttl_ms=3 * DAY_MS, key="extension")
    await shop.pass_time(2 * DAY_MS)
    assert await shop.engine.extend(made.value.id, ttl_ms=3 * DAY_MS, key="extension") == extended._replace(
        replayed=True
    )
    await shop.engine.release(made.value.id)
    await shop.pass_time(DAY_MS - 10_000)
    assert await shop.engine.extend(made.value.id, ttl_ms=3 * DAY_MS, key="extension") == extended._replace(
        replayed=True
    )
    await shop.pass_time(3 * DAY_MS)
    answer = await shop.engine.extend(made.value.id, ttl_ms=3 * DAY_MS, key="extension")
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.UNKNOWN_HOLD


async def test_a_key_reused_after_its_hold_was_forgotten_does_not_stop_the_sweeper(shop: Shop) -> None:
    """An answer about a hold whose key means something else by now is forgotten like any other."""
    made = await shop.engine.hold(key="cart", lines=ONE)
    await shop.engine.commit(made.value.id, key="payment")
    clock_ms = (await shop.engine.place()).clock_ms
    shop.store.hset(KEYS.meta, "clock", clock_ms + DAY_MS + 1)
    await shop.engine.sweep(expire_max=1, purge_max=2)  # the receipt of the stock, and the hold; not yet the payment
    assert isinstance(await shop.engine.hold(key="cart", lines=[Line("shoe", 100)]), Refused)
    await shop.pass_time(DAY_MS)
    assert shop.records() == 0


async def test_nothing_stays_for_ever(shop: Shop) -> None:
    """When all is over and old, only counters, policies and the journal are left."""
    for number in range(30):
        made = await shop.engine.hold(key=f"cart-{number}", lines=ONE, ttl_ms=1_000, allow_partial=number % 2 == 0)
        if isinstance(made, Applied) and number % 3 == 0:
            await shop.engine.commit(made.value.id, key=f"payment-{number}")
            await shop.engine.move("cancel", "shoe", 1, key=f"undo-{number}", hold=made.value.id)
        elif isinstance(made, Applied) and number % 3 == 1:
            await shop.engine.extend(made.value.id, ttl_ms=2_000, key=f"more-{number}")
            await shop.engine.release(made.value.id, key=f"never-mind-{number}")
    assert shop.records() > 30
    await shop.pass_time(10_000)
    assert (await shop.engine.read_stock("shoe")).value.held == 0
    await shop.pass_time(DAY_MS)
    await shop.pass_time(DAY_MS)
    assert shop.records() == 0
    for key in (KEYS.due, KEYS.wake, KEYS.ended, KEYS.refused, KEYS.buyers):
        assert not shop.store.exists(key), f"{key} is left"
    stock = (await shop.engine.read_stock("shoe")).value
    assert (stock.available, stock.held, stock.committed) == (10, 0, 0)


async def test_a_sweep_keeps_its_bounds(shop: Shop, redis_url: str) -> None:
    """It expires and forgets at most as many as it was told, says that there is more, and the next goes on."""
    await shop.engine.move("receipt", "shoe", 90, key="more-stock")
    for number in range(50):
        await shop.engine.hold(key=f"cart-{number}", lines=[Line("shoe", 2)], ttl_ms=1_000)
    clock_ms = (await shop.engine.place()).clock_ms
    shop.store.hset(KEYS.meta, "clock", clock_ms + 5_000)
    swept = [await shop.engine.sweep(expire_max=20, purge_max=5) for _ in range(4)]
    assert [one.expired for one in swept] == [20, 20, 10, 0]
    assert [one.more for one in swept] == [True, True, False, False]
    assert 4_000 <= swept[0].lateness_max_ms < 60_000
    assert swept[0].next_deadline_ms is not None
    assert swept[0].next_deadline_ms <= clock_ms + 1_000
    assert swept[-1].next_deadline_ms is None
    shop.store.hset(KEYS.meta, "clock", clock_ms + DAY_MS + 10_000)
    swept = [await shop.engine.sweep(expire_max=20, purge_max=30) for _ in range(3)]
    assert [one.purged for one in swept] == [30, 22, 0]
    assert shop.records() == 0
    await counters_agree(shop.engine, whole_journal(redis_url))
