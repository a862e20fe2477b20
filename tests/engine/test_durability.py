"""Levels of durability on real servers: what is not as safe as was asked for is not acknowledged."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
import redis

from flashhold import Applied, Engine, EngineOptions, Line, Refused
from flashhold.domain.errors import NotDurable
from flashhold.embedded.child import Child
from flashhold.engine.durability import Durability
from tests.conftest import REDIS_BINARIES

SHOE = [Line("shoe", 1)]
Start = Callable[..., tuple[Child, str]]


def _follow(replica: str, primary: str) -> None:
    with redis.Redis.from_url(replica) as follower, redis.Redis.from_url(primary) as leader:
        follower.replicaof("127.0.0.1", leader.connection_pool.connection_kwargs["port"])


async def _until_followed(primary: str) -> None:
    with redis.Redis.from_url(primary) as leader:
        async with asyncio.timeout(20):
            while not leader.wait(1, 100):  # noqa: ASYNC110  # the server has no event for it
                await asyncio.sleep(0.05)


def _options(**more: object) -> EngineOptions:
    return EngineOptions(durability=Durability.REPLICA, reply_timeout_ms=1_000, **more)  # type: ignore[arg-type]  # by name


async def test_a_hold_is_acknowledged_when_a_replica_has_it(start_redis: Start) -> None:
    """What was acknowledged is there when the primary is gone for good and the replica takes over."""
    (primary, url), (_, replica) = start_redis(), start_redis()
    _follow(replica, url)
    await _until_followed(url)
    async with await Engine.connect(url, options=_options()) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 100, key="stock")
        made = [await engine.hold(key=f"cart-{n}", lines=SHOE) for n in range(20)]
        os.kill(primary.pid or 0, signal.SIGKILL)
    with redis.Redis.from_url(replica) as follower:
        follower.replicaof("no", "one")
    async with await Engine.connect(replica) as engine:
        for one in made:
            assert isinstance(one, Applied)
            assert (await engine.read_hold(one.value.id)).value == one.value


async def test_without_a_replica_nothing_is_acknowledged(start_redis: Start) -> None:
    """503 not-durable in time; the same key finds its answer once a replica is there."""
    (_, url), (_, replica) = start_redis(), start_redis()
    async with await Engine.connect(url, options=_options()) as engine:
        await engine.install()
        with pytest.raises(NotDurable):
            await engine.move("receipt", "shoe", 5, key="stock")
        _follow(replica, url)
        await _until_followed(url)
        again = await engine.move("receipt", "shoe", 5, key="stock")
        assert isinstance(again, Applied) and again.replayed


async def test_a_replay_waits_for_the_replica_too(start_redis: Start) -> None:
    """A repeated answer is as durable as the first: with the replica stopped neither is given."""
    (_, url), (follower, replica) = start_redis(), start_redis()
    _follow(replica, url)
    await _until_followed(url)
    async with await Engine.connect(url, options=_options()) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 5, key="stock")
        first = await engine.hold(key="cart", lines=SHOE)
        os.kill(follower.pid or 0, signal.SIGSTOP)
        try:
            with pytest.raises(NotDurable):
                await engine.hold(key="cart", lines=SHOE)
        finally:
            os.kill(follower.pid or 0, signal.SIGCONT)
        assert await engine.hold(key="cart", lines=SHOE) == first._replace(replayed=True)  # type: ignore[union-attr]  # applied


async def test_a_store_that_wants_replicas_says_not_durable(start_redis: Start) -> None:
    """`min-replicas-to-write` refuses before anything happens; the caller hears the contract's word for it."""
    (_, url) = start_redis(settings={"min-replicas-to-write": "1"})
    async with await Engine.connect(url, options=_options()) as engine:
        with pytest.raises(NotDurable):
            await engine.install()


async def test_level_ledger_waits_for_the_gate(one_redis_url: str) -> None:
    """The outcome is told once the ledger has the entry, and never where it does not come."""
    asked: list[tuple[str, int, int]] = []
    opened = asyncio.Event()

    async def gate(partition: str, epoch: int, seq: int) -> None:
        asked.append((partition, epoch, seq))
        await opened.wait()

    options = EngineOptions(durability=Durability.LEDGER, ledger_gate=gate, reply_timeout_ms=300)
    async with await Engine.connect(one_redis_url, options=options) as engine:
        await engine.install()
        with pytest.raises(NotDurable):
            await engine.move("receipt", "shoe", 5, key="stock")
        opened.set()
        assert (await engine.move("receipt", "shoe", 5, key="stock")).replayed  # type: ignore[union-attr]  # applied
        assert asked == [("p00", 1, 1), ("p00", 1, 1)]


async def test_level_ledger_without_a_way_to_ask_acknowledges_nothing(one_redis_url: str) -> None:
    """An engine that cannot know does not guess."""
    async with await Engine.connect(one_redis_url, options=EngineOptions(durability=Durability.LEDGER)) as engine:
        await engine.install()
        with pytest.raises(NotDurable):
            await engine.move("receipt", "shoe", 5, key="stock")


class Gate:
    """A ledger that says of every place that it has it, once it is told to; and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = asyncio.Event()

    async def reached(self, _: str, __: int, seq: int) -> None:
        self.asked.append(seq)
        await self.open.wait()


async def test_a_policy_raises_the_level_of_its_sku_only(redis_url: str) -> None:
    """Who buys the precious SKU waits for the ledger, in the same batch as one who does not; replays as well."""
    gate = Gate()
    options = EngineOptions(ledger_gate=gate.reached, reply_timeout_ms=5_000)
    async with await Engine.connect(redis_url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 5, key="stock")
        await engine.move("receipt", "watch", 1, key="stock of watches")
        setting = asyncio.create_task(engine.set_policy("watch", {"durability": "ledger"}, replace=False))
        while not gate.asked:  # noqa: ASYNC110  # the policy itself is as durable as it asks for
            await asyncio.sleep(0.005)
        precious = asyncio.create_task(engine.hold(key="watch", lines=[Line("watch", 1)]))
        refused = asyncio.create_task(engine.hold(key="late", lines=[Line("watch", 1)]))
        ordinary = await engine.hold(key="shoe", lines=SHOE)
        assert isinstance(ordinary, Applied)
        await asyncio.sleep(0.05)
        assert not precious.done() and not refused.done() and not setting.done()
        gate.open.set()
        made = await precious
        assert isinstance(made, Applied) and isinstance(await refused, Refused)
        asked = len(gate.asked)
        assert (await engine.hold(key="watch", lines=[Line("watch", 1)])).replayed
        paid = await engine.commit(made.value.id)
        assert isinstance(paid, Applied) and paid.value.state.label == "committed"
        assert len(gate.asked) == asked + 2
        ruled = await setting
        assert isinstance(ruled, Applied) and ruled.value.durability == "ledger"


async def test_a_policy_lowers_nothing(start_redis: Start) -> None:
    """A SKU that asks for less than the deployment gets what the deployment promises."""
    _, url = start_redis()
    async with await Engine.connect(url, options=EngineOptions(durability=Durability.MEMORY)) as engine:
        await engine.install()
        await engine.set_policy("shoe", {"durability": "memory"}, replace=False)
    async with await Engine.connect(url, options=_options()) as engine:
        with pytest.raises(NotDurable):
            await engine.move("receipt", "shoe", 5, key="stock")


@pytest.mark.parametrize("kind", list(REDIS_BINARIES))
async def test_disk_for_one_sku_where_the_server_syncs_now_and_then(kind: str, start_redis: Start) -> None:
    """Valkey is asked for its fsync; Redis 7.0 cannot be, so that nothing is acknowledged there."""
    _, url = start_redis(binary=REDIS_BINARIES[kind], settings={"appendfsync": "everysec"})
    options = EngineOptions(durability=Durability.MEMORY, reply_timeout_ms=3_000)
    async with await Engine.connect(url, options=options) as engine:
        await engine.install()
        assert isinstance(await engine.move("receipt", "shoe", 5, key="stock"), Applied)
        setting = engine.set_policy("shoe", {"durability": "disk"}, replace=False)
        if kind.startswith("valkey"):
            await setting
            assert isinstance(await engine.hold(key="cart", lines=SHOE), Applied)
        else:
            with pytest.raises(NotDurable):
                await setting
