"""Getting to a store, making sure that it is the right one, and the plain reads."""

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain.errors import FlashHoldError, Misconfigured, NotDurable, Recovering, StoreUnavailable
from flashhold.engine.durability import Durability
from flashhold.engine.keys import partition_keys
from tests.conftest import free_port


async def test_an_empty_store_decides_nothing(redis_url: str) -> None:
    """Before a partition is installed every verb says that it is recovering, and nothing is written."""
    async with await Engine.connect(redis_url) as engine:
        for ask in (
            engine.hold(key="key", lines=[Line("shoe", 1)]),
            engine.move("receipt", "shoe", 1, key="stock"),
            engine.read_stock("shoe"),
            engine.sweep(),
            engine.place(),
            engine.snapshot(),
        ):
            with pytest.raises(Recovering):
                await ask
    with redis.Redis.from_url(redis_url) as store:
        assert store.dbsize() == 0


async def test_installing_twice_changes_nothing(engine: Engine, redis_url: str) -> None:
    """Whoever comes second finds the partition as it is."""
    await engine.move("receipt", "shoe", 3, key="stock")
    before = await engine.snapshot()
    async with await Engine.connect(redis_url) as other:
        await other.install()
        assert await other.snapshot() == before


@pytest.mark.parametrize("name", ["hold_ttl_ms", "hold_ttl_max_ms", "retention_ms", "refused_retention_ms"])
async def test_settings_that_must_agree_are_compared(engine: Engine, redis_url: str, name: str) -> None:
    """A process with another idea of what all must share is told so at its start, and which it is."""
    options = EngineOptions()
    other = replace(options, **{name: getattr(options, name) + 1})
    with pytest.raises(Misconfigured, match=name):
        await Engine.connect(redis_url, options=other)


async def test_another_schema_is_not_touched(engine: Engine, redis_url: str) -> None:
    """Data of another layout is left alone."""
    with redis.Redis.from_url(redis_url) as store:
        store.hset(partition_keys("p00").meta, "schema", "999")
    with pytest.raises(Misconfigured, match="999"):
        await Engine.connect(redis_url)


@pytest.mark.parametrize(("name", "value"), [("appendonly", "no"), ("appendfsync", "everysec")])
async def test_a_promise_that_cannot_be_kept_is_not_made(
    start_redis: Callable[..., Any], name: str, value: str
) -> None:
    """Level disk needs fsync before the answer; level memory takes any server."""
    _, url = start_redis(settings={name: value})
    with pytest.raises(NotDurable):
        await Engine.connect(url)
    async with await Engine.connect(url, options=EngineOptions(durability=Durability.MEMORY)) as engine:
        await engine.install()
        assert isinstance(await engine.move("receipt", "shoe", 1, key="stock"), Applied)


async def test_nobody_there() -> None:
    """A store that cannot be reached is an accident with a name, and soon."""
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await Engine.connect(f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(StoreUnavailable):
            await Engine.connect("unix:///nowhere/at/all.sock")


async def test_a_wrong_password_is_a_setting_to_mend(start_redis: Callable[..., Any]) -> None:
    """Refused credentials are not mistaken for a store that is away."""
    _, url = start_redis()
    with redis.Redis.from_url(url) as store:
        store.config_set("requirepass", "right")
    with pytest.raises(FlashHoldError) as refused:
        await Engine.connect(url.replace("redis://", "redis://:wrong@"))
    assert isinstance(refused.value, Misconfigured)
    async with await Engine.connect(url.replace("redis://", "redis://:right@")) as engine:
        await engine.install()


async def test_sellable_is_a_plain_look(engine: Engine) -> None:
    """Every pool of every SKU asked for; what nobody knows is left out; what is not for sale is not sellable."""
    await engine.move("receipt", "shoe", 5, key="stock")
    await engine.move("receipt", "shoe", 2, key="stock-eu", pool="eu")
    await engine.set_policy("shoe", {"pools": {"default": {"safety_stock": 1}}}, replace=False)
    await engine.set_policy("hat", {}, replace=False)
    await engine.hold(key="cart", lines=[Line("shoe", 1)])
    assert await engine.sellable(["shoe", "sock", "hat"]) == {"shoe": {"default": 3, "eu": 2}, "hat": {"default": 0}}
    assert await engine.sellable([]) == {}
    assert await engine.sellable(["sock"]) == {}


async def test_the_place_moves_with_every_entry(engine: Engine) -> None:
    """A refusal or a read leaves it where it is; its chain is that of the last entry."""
    start = await engine.place()
    assert (start.epoch, start.seq, start.chain) == (1, 0, "0" * 40)
    received = await engine.move("receipt", "shoe", 1, key="stock")
    await engine.hold(key="greedy", lines=[Line("shoe", 9)])
    await engine.read_stock("shoe")
    place = await engine.place()
    assert (place.seq, place.chain) == (1, received.value.chain)


async def test_what_is_under_way_ends_before_closing(redis_url: str) -> None:
    """Closing waits for answers that are due; afterwards nothing is sent."""
    engine = await Engine.connect(redis_url)
    await engine.install()
    asked = [asyncio.ensure_future(engine.move("receipt", "shoe", 1, key=f"stock-{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await engine.close()
    assert all(isinstance(one, Applied) for one in await asyncio.gather(*asked))
    with pytest.raises(StoreUnavailable):
        await engine.read_stock("shoe")


async def test_who_is_told_that_the_store_is_down_gets_an_error_of_its_own(redis_url: str) -> None:
    """The same words for everybody, but not the same object: its traceback would grow with every caller."""
    engine = await Engine.connect(redis_url)
    await engine.close()
    told = []
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="the engine was closed") as refused:
            await engine.read_stock("shoe")
        told.append(refused.value)
    assert len({id(error) for error in told}) == 3
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in told}) == 1
