"""The sweeper: bounded, patient, and any number of them."""

import asyncio
import time

from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.model import Line, Swept
from flashhold.services.sweep import Sweeper, SweepOptions, wait
from tests.services.shop import Shop, open_shop


async def until_nothing_is_held(shop: Shop) -> None:
    """Wait for the store's own counters, without a read that would expire by itself."""
    for _ in range(500):
        if not any(pool.held for pool in (await shop.engine.snapshot()).pools):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("units are still held")


async def test_several_sweepers_expire_everything_once(redis_url: str, database_url: str) -> None:
    """Three at once, each a few at a time: every overdue hold is given back exactly once, none that is not overdue."""
    async with open_shop(redis_url, database_url) as shop:
        await shop.engine.move("receipt", "shoe", 300, key="r")
        overdue = [await shop.hold(Line("shoe", 1), ttl_ms=1) for _ in range(100)]
        later = await shop.hold(Line("shoe", 7))
        stop = asyncio.Event()
        options = SweepOptions(expire_max=7, pause_ms=20)
        sweepers = [Sweeper(shop.engine, options=options) for _ in range(3)]
        running = [asyncio.create_task(sweeper.run(stop)) for sweeper in sweepers]
        for _ in range(500):
            if sum(pool.held for pool in (await shop.engine.snapshot()).pools) == 7:
                break
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*running), 2)
        assert sum(sweeper.gauges.expired._value.get() for sweeper in sweepers) == len(overdue)
        report = await shop.audit()
        assert report.clean
        assert report.seq == 1 + 100 + 1 + 100
        assert (await shop.engine.read_hold(later.id)).value.state.label == "held"


async def test_a_sweep_is_bounded(one_redis_url: str, database_url: str) -> None:
    """However much is overdue, one sweep takes no more than it may, and says that there is more."""
    async with open_shop(one_redis_url, database_url) as shop:
        await shop.engine.move("receipt", "shoe", 30, key="r")
        for _ in range(12):
            await shop.hold(Line("shoe", 1), ttl_ms=1)
        await asyncio.sleep(0.005)
        sweeper = Sweeper(shop.engine, options=SweepOptions(expire_max=5))
        swept = [await sweeper.sweep() for _ in range(3)]
        assert [(one.expired, one.more) for one in swept] == [(5, True), (5, True), (2, False)]
        assert sweeper.gauges.lateness_seconds._value.get() > 0


async def test_pauses_are_jittered_and_give_way(one_redis_url: str, database_url: str) -> None:
    """Idle sweepers spread out; a busy one breathes between its sweeps."""
    async with open_shop(one_redis_url, database_url) as shop:
        sweeper = Sweeper(shop.engine, options=SweepOptions(pause_ms=400))
    idle = [sweeper._pause_s(Swept(0, 0, 0, False, None), 0.01) for _ in range(200)]
    assert 0.2 <= min(idle) < 0.24 and 0.36 < max(idle) <= 0.4
    busy = [sweeper._pause_s(Swept(256, 0, 9, True, None), 0.01) for _ in range(200)]
    assert min(busy) >= 0.0002 and max(busy) <= 0.0006 and len(set(busy)) > 100


async def test_a_store_that_is_away_is_waited_for(one_redis_url: str, database_url: str) -> None:
    """Failures are counted and the sweeper goes on by itself when the store is back."""
    async with open_shop(one_redis_url, database_url) as shop:
        sweeper = Sweeper(shop.engine, options=SweepOptions(pause_ms=10, patience_ms=20))
        sweep, tries = sweeper.sweep, 0

        async def failing() -> Swept:
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise StoreUnavailable
            return await sweep()

        sweeper.sweep = failing  # type: ignore[method-assign]  # in place of the store
        await shop.engine.move("receipt", "shoe", 3, key="r")
        await shop.hold(Line("shoe", 1), ttl_ms=1)
        stop = asyncio.Event()
        running = asyncio.create_task(sweeper.run(stop))
        await until_nothing_is_held(shop)
        stop.set()
        await running
    assert sweeper.gauges.failures.labels("redis")._value.get() == 3


async def test_a_stop_interrupts_a_pause() -> None:
    """A process that is told to stop does not sleep out its pause."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    began = time.monotonic()
    await wait(stop, 30)
    assert time.monotonic() - began < 5
