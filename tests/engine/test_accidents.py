"""What nobody decided: lost replies, dead servers, full memory. The outcome may be unknown, never wrong."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis

from flashhold import Applied, Engine, EngineOptions, HoldState, Line
from flashhold.domain.errors import FlashHoldError, Overloaded, Recovering, StoreUnavailable
from tests.conftest import REDIS_BINARIES
from tests.engine.proof import counters_agree, lives, whole_journal
from tests.engine.proxy import Proxy

ONE = [Line("hot", 1)]


async def persistently(ask: Callable[[], Any], patience_s: float = 20) -> Any:
    """What a client does: repeat with the same key until there is an answer."""
    async with asyncio.timeout(patience_s):
        while True:
            try:
                return await ask()
            except FlashHoldError:
                await asyncio.sleep(0.02)


async def stocked(engine: Engine, units: int = 1_000) -> None:
    """So many units of the hot SKU."""
    await engine.move("receipt", "hot", units, key="stock")


async def test_a_reply_of_another_batch_is_noticed(redis_url: str) -> None:
    """A connection that is one reply off gives nobody a stranger's answer; it is given up and made anew."""
    async with Proxy(redis_url) as proxy, await Engine.connect(proxy.url) as engine:
        await engine.install()
        await stocked(engine)
        first = await engine.hold(key="ann", lines=ONE, buyer="ann")
        proxy.repeat_last_reply = True
        with pytest.raises(StoreUnavailable):
            await engine.hold(key="bob", lines=ONE, buyer="bob")
        again = await persistently(lambda: engine.hold(key="bob", lines=ONE, buyer="bob"))
        assert again.value.buyer == "bob"
        assert again.replayed
        assert again.value.id != first.value.id
    assert len(lives(whole_journal(redis_url))) == 2


async def test_a_lost_reply_is_unknown_and_the_retry_finds_it(redis_url: str) -> None:
    """The hold was made, its answer lost: 'unknown', and the same key gives the answer and no second hold."""
    async with Proxy(redis_url) as proxy, await Engine.connect(proxy.url) as engine:
        await engine.install()
        await stocked(engine)
        proxy.cut_before_reply = True
        with pytest.raises(StoreUnavailable):
            await engine.hold(key="ann", lines=ONE)
        sent = proxy.commands_seen
        answer = await persistently(lambda: engine.hold(key="ann", lines=ONE))
        assert answer.replayed
        assert proxy.commands_seen == sent + 1, "a command was sent again behind the caller's back"
    assert len(lives(whole_journal(redis_url))) == 1


async def test_a_silent_store_is_given_up_in_time(redis_url: str) -> None:
    """A store that does not answer within the time makes the outcome unknown, soon, and once."""
    options = EngineOptions(reply_timeout_ms=300)
    async with await Engine.connect(redis_url, options=options) as engine:
        await engine.install()
        await stocked(engine)
        with redis.Redis.from_url(redis_url) as store:
            store.client_pause(2_000, all=False)
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        answers = await asyncio.gather(
            *[engine.hold(key=f"key-{number}", lines=ONE) for number in range(600)], return_exceptions=True
        )
        assert loop.time() - asked_at < 1.8, "callers were kept waiting for longer than a reply may take"
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        settled = [
            await persistently(lambda key=f"key-{number}": engine.hold(key=key, lines=ONE)) for number in range(600)
        ]
        assert all(isinstance(answer, Applied) for answer in settled)
        written = whole_journal(redis_url)
        assert len(lives(written)) == 600
        await counters_agree(engine, written)


async def test_whoever_waits_behind_a_silent_store_hears_in_time(redis_url: str) -> None:
    """Calls that come while a batch hangs, and while the connection is made anew, wait no longer than it may take."""
    options = EngineOptions(reply_timeout_ms=500)
    loop = asyncio.get_running_loop()

    async def waited_s(engine: Engine, number: int) -> float:
        await asyncio.sleep(number * 0.02)
        asked_at = loop.time()
        with pytest.raises(StoreUnavailable):
            await engine.hold(key=f"key-{number}", lines=ONE)
        return loop.time() - asked_at

    async with await Engine.connect(redis_url, options=options) as engine:
        await engine.install()
        await stocked(engine)
        with redis.Redis.from_url(redis_url) as store:
            store.client_pause(3_000, all=True)
        assert max(await asyncio.gather(*[waited_s(engine, number) for number in range(75)])) < 0.75
        assert engine.waiting == 0
        assert isinstance(await persistently(lambda: engine.hold(key="later", lines=ONE)), Applied)


async def test_a_slow_store_keeps_nobody_longer(redis_url: str) -> None:
    """The time spent before a batch counts too; the answer that comes too late breaks nothing for the others."""
    options = EngineOptions(reply_timeout_ms=500, batches_in_flight_max=1, batch_size_max=1)
    async with Proxy(redis_url) as proxy, await Engine.connect(proxy.url, options=options) as engine:
        await engine.install()
        await stocked(engine)
        proxy.slow_s = 0.3
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        answers = await asyncio.gather(
            *[engine.hold(key=f"key-{number}", lines=ONE) for number in range(4)], return_exceptions=True
        )
        assert loop.time() - asked_at < 0.7
        assert [type(answer) for answer in answers] == [Applied, StoreUnavailable, StoreUnavailable, StoreUnavailable]
        proxy.slow_s = 0.0
        again = await persistently(lambda: engine.hold(key="key-1", lines=ONE))
        assert again.replayed, "it was carried out, and only its answer came too late"


async def test_an_error_is_nobody_elses(redis_url: str) -> None:
    """Every call of a batch that fails gets an error of its own: raised twice, one would collect everybody's frames."""
    async with await Engine.connect(redis_url, options=EngineOptions(reply_timeout_ms=200)) as engine:
        await engine.install()
        with redis.Redis.from_url(redis_url) as store:
            store.client_pause(500, all=False)
        answers = await asyncio.gather(
            *[engine.hold(key=f"key-{number}", lines=ONE) for number in range(5)], return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert len({id(answer) for answer in answers}) == 5


async def test_forgotten_scripts_reach_nobody(engine: Engine, redis_url: str) -> None:
    """SCRIPT FLUSH under load: every call is answered, every hold made once."""
    await stocked(engine)
    with redis.Redis.from_url(redis_url) as store:

        async def flush() -> None:
            for _ in range(15):
                store.script_flush()
                await asyncio.sleep(0.005)

        async def ask(number: int) -> Any:
            await asyncio.sleep(number * 0.0003)
            return await engine.hold(key=f"key-{number}", lines=ONE)

        *answers, _ = await asyncio.gather(*map(ask, range(300)), flush())
    assert all(isinstance(answer, Applied) and not answer.replayed for answer in answers)
    assert len(lives(whole_journal(redis_url))) == 300


async def test_too_many_waiting_are_turned_away_unsent(redis_url: str) -> None:
    """Beyond the bound a call is refused at once and not sent; the others are served, and then there is room again."""
    options = EngineOptions(waiting_max=50)
    async with await Engine.connect(redis_url, options=options) as engine:
        await engine.install()
        await stocked(engine)
        answers = await asyncio.gather(
            *[engine.hold(key=f"key-{number}", lines=ONE) for number in range(200)], return_exceptions=True
        )
        turned_away = [answer for answer in answers if isinstance(answer, Overloaded)]
        served = [answer for answer in answers if isinstance(answer, Applied)]
        assert (len(served), len(turned_away)) == (50, 150)
        assert len(lives(whole_journal(redis_url))) == 50
        assert engine.waiting == 0
        assert isinstance(await engine.hold(key="later", lines=ONE), Applied)


async def test_out_of_memory_refuses_holds_and_lets_go(engine: Engine, redis_url: str) -> None:
    """A full store takes no new holds, but everything that gives stock or memory back still works."""
    await stocked(engine)
    held = [
        (await engine.hold(key=f"key-{number}", lines=ONE, ttl_ms=ttl_ms)).value.id
        for number, ttl_ms in enumerate([60_000, 60_000, 60_000, 1, 1])
    ]
    with redis.Redis.from_url(redis_url) as store:
        store.config_set("maxmemory", "100kb")
        try:
            with pytest.raises(StoreUnavailable):
                await engine.hold(key="one-more", lines=ONE)
            mixed = await asyncio.gather(
                engine.hold(key="another", lines=ONE),
                engine.release(held[0]),
                engine.commit(held[1], reference="order-1"),
                engine.read_stock("hot"),
                return_exceptions=True,
            )
            assert isinstance(mixed[0], StoreUnavailable)
            assert [answer.value.state for answer in mixed[1:3]] == [HoldState.RELEASED, HoldState.COMMITTED]
            assert (await engine.release(held[2])).value.state is HoldState.RELEASED
            await engine.sweep()
            assert (await engine.read_hold(held[3])).value.state is HoldState.EXPIRED
            assert (await engine.read_stock("hot")).value.held == 0
        finally:
            store.config_set("maxmemory", "0")
    assert isinstance(await engine.hold(key="one-more", lines=ONE), Applied)
    written = whole_journal(redis_url)
    await counters_agree(engine, written)
    assert len(lives(written)) == 6


async def test_a_store_that_lost_acknowledged_entries_sells_nothing(engine: Engine, redis_url: str) -> None:
    """Whoever has seen seq 5 does not take orders from a store that stands at 1, nor from an empty one."""
    await stocked(engine)
    for number in range(4):
        await engine.hold(key=f"key-{number}", lines=ONE)
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
        with pytest.raises(Recovering):
            await engine.sellable(["hot", "unknown"])
        with pytest.raises(Recovering):
            await engine.hold(key="after", lines=ONE)
        async with await Engine.connect(redis_url) as fresh:
            await fresh.install()
            await stocked(fresh, 7)
        with pytest.raises(Recovering):
            await engine.sellable(["hot"])
        store.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.3)
        with pytest.raises(Recovering):
            await engine.hold(key="after", lines=ONE)


@pytest.mark.parametrize("kind", list(REDIS_BINARIES))
async def test_kill_9_in_full_flight(start_redis: Callable[..., Any], kind: str) -> None:
    """The server dies in the middle of traffic, twice: nothing acknowledged is lost, and no key has two effects."""
    child, url = start_redis(binary=REDIS_BINARIES[kind])
    async with await Engine.connect(url) as engine:
        await engine.install()
        await stocked(engine, 500)
        acknowledged: dict[str, str] = {}
        failures = 0

        async def buy(number: int) -> None:
            nonlocal failures
            await asyncio.sleep(number * 0.001)
            async with asyncio.timeout(30):
                while True:
                    try:
                        answer = await engine.hold(key=f"key-{number}", lines=ONE)
                        break
                    except FlashHoldError:
                        failures += 1
                        await asyncio.sleep(0.05)
            if isinstance(answer, Applied):
                acknowledged[f"key-{number}"] = answer.value.id

        buyers = [asyncio.create_task(buy(number)) for number in range(700)]
        for _ in range(2):
            await asyncio.sleep(0.2)
            os.kill(child.pid, signal.SIGKILL)
            await asyncio.to_thread(child.start, 30)
        await asyncio.gather(*buyers)
        assert failures, "the server died and nobody noticed: nothing was shown"
        written = whole_journal(url)
        made = {entry.idempotency_key: entry.hold for entry in written if entry.kind == "hold"}
        assert made == acknowledged
        assert len(made) == 500
        lives(written)
        await counters_agree(engine, written)
