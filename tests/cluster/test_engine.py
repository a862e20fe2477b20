"""An engine on a cluster finds its primary, and what happens to nodes and slots is told to nobody in their words."""

import asyncio
import functools
import signal
import time
from collections.abc import Callable

import pytest
from redis.crc import key_slot

from flashhold import Engine, EngineOptions, Line
from flashhold.domain.entries import Batch
from flashhold.domain.errors import FlashHoldError, Misconfigured, NotDurable, StoreUnavailable
from flashhold.domain.model import Stock
from flashhold.engine.address import blocking_client, cluster_of
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from tests.cluster.crowd import Crowd, crowd_at
from tests.cluster.nodes import LocalCluster, Node, fall_behind, take_over, url_of

BACK_S = 5.0
"""After the promotion, holds must be answered again."""
WORDS = ("MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT", "NOSCRIPT", "READONLY", "MASTERDOWN", "LOADING")
"""Of the cluster's own language; none may reach a user."""

pytestmark = pytest.mark.slow


def said_plainly(crowd: Crowd) -> bool:
    return not any(word in sentence for sentence in crowd.wrong for word in WORDS)


async def all_are_there(crowd: Crowd) -> bool:
    """Whether the store has every hold that was acknowledged, and counts no more than were asked for."""
    for hold in crowd.held:
        await crowd.engine.read_hold(hold)
    stock = (await crowd.engine.read_stock("shoe")).value
    return len(crowd.held) <= stock.held <= len(crowd.told)


def another(cluster: LocalCluster, than: Node) -> Node:
    return next(n for n in cluster.nodes if n is not than and n.info("replication")["role"] == "master")


async def test_a_slot_moves_and_nobody_notices(cluster: LocalCluster) -> None:
    """Under load the slot goes to another primary, standing half-way for longer than a batch takes: no error at all."""
    async with crowd_at(cluster.url) as crowd:
        for _ in range(3):
            source = cluster.primary_of("p00")
            move = (key_slot(b"p00"), source, another(cluster, source))
            await asyncio.to_thread(cluster.move_slot, *move, between=lambda: time.sleep(0.3))
            await crowd.more()
        assert crowd.wrong == []
        assert await all_are_there(crowd)


async def test_a_slot_stays_half_way(cluster: LocalCluster) -> None:
    """For longer than anybody waits: they are told so in plain words, and nothing was carried out."""
    async with crowd_at(cluster.url) as crowd:
        source = cluster.primary_of("p00")
        move = (key_slot(b"p00"), source, another(cluster, source))
        await asyncio.to_thread(cluster.move_slot, *move, between=lambda: time.sleep(2.6))
        await crowd.more()
        assert crowd.wrong
        assert said_plainly(crowd)
        unknown = [sentence for sentence in crowd.wrong if "unknown" in sentence]  # sent as the move began
        assert [one for one in crowd.wrong if one not in unknown and "not carried out" not in one] == []
        assert len(unknown) < len(crowd.wrong)
        stock = (await crowd.engine.read_stock("shoe")).value
        assert len(crowd.held) <= stock.held <= len(crowd.held) + len(unknown)


async def test_a_primary_dies(cluster: LocalCluster) -> None:
    """Its partition goes on at the promoted replica within seconds, with all that was acknowledged; a partition of
    another primary does not notice."""
    victim = cluster.primary_of("p00")
    elsewhere = next(p for p in ("p01", "p02", "p03") if cluster.primary_of(p) is not victim)
    async with crowd_at(cluster.url) as crowd, crowd_at(cluster.url, elsewhere) as others:
        replica = cluster.replica_of(victim)
        await asyncio.to_thread(victim.kill)
        promoted_at = await asyncio.to_thread(cluster.until_promoted, replica)
        await asyncio.to_thread(victim.start)  # without it there is no replica to confirm what is written
        assert await crowd.first_hold(promoted_at, BACK_S) < BACK_S
        assert others.wrong == []
        assert said_plainly(crowd)
        assert await all_are_there(crowd)


async def test_a_primary_is_asked_to_step_down(cluster: LocalCluster) -> None:
    """CLUSTER FAILOVER, as before maintenance: the engine follows at once, because the old one says where to."""
    async with crowd_at(cluster.url) as crowd:
        await asyncio.to_thread(cluster.step_down, cluster.primary_of("p00"))
        await crowd.more()
        assert said_plainly(crowd)
        assert await all_are_there(crowd)


async def test_a_replica_that_lags_takes_over(cluster: LocalCluster) -> None:
    """What it lacks was acknowledged to nobody at `replica`, so it is used at once; and an engine that nobody waits
    for, such as the sweeper's, is not kept from it by what it has seen."""
    async with await Engine.connect(cluster.url, options=EngineOptions(durability=Durability.REPLICA)) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 100, key="stock")
        primary = cluster.primary_of("p00")
        replica = cluster.replica_of(primary)
        async with await Engine.connect(cluster.url, options=EngineOptions(durability=Durability.MEMORY)) as sweeper:
            replica.signal(signal.SIGSTOP)
            await asyncio.to_thread(fall_behind, primary, "p00")
            for number in range(20):
                await sweeper.hold(key=f"lost-{number}", lines=[Line("shoe", 1)])
            with pytest.raises(NotDurable):
                await engine.hold(key="refused", lines=[Line("shoe", 1)])
            await asyncio.to_thread(primary.kill)
            replica.signal(signal.SIGCONT)
            await asyncio.to_thread(take_over, replica)
            await asyncio.to_thread(primary.start)
            await asyncio.to_thread(cluster.until_whole)
            for each in (engine, sweeper):
                async with asyncio.timeout(BACK_S):
                    assert (await _hold_at_last(each)).held < 20, "nothing was lost: this shows nothing"


async def _hold_at_last(engine: Engine) -> Stock:
    while True:
        try:
            await engine.hold(key=f"after-{id(engine)}", lines=[Line("shoe", 1)])
            return (await engine.read_stock("shoe")).value
        except FlashHoldError:
            await asyncio.sleep(0.05)


async def test_all_nodes_are_restarted(cluster: LocalCluster) -> None:
    """Everything away at once: the engine that lived through it goes on by itself, with all that was acknowledged."""
    async with crowd_at(cluster.url) as crowd:
        await asyncio.to_thread(cluster.restart_all)
        await asyncio.to_thread(cluster.until_whole)
        assert await crowd.first_hold(time.monotonic(), BACK_S) < BACK_S
        assert said_plainly(crowd)
        assert await all_are_there(crowd)


async def test_only_nodes_that_were_learnt_are_left(cluster: LocalCluster) -> None:
    """The only node of the URL dies, the partition's primary itself: it had named the others, and they know the way."""
    named = cluster.primary_of("p00")
    async with crowd_at(url_of([named]), durability=Durability.DISK) as crowd:
        replica = cluster.replica_of(named)
        await asyncio.to_thread(named.kill)
        promoted_at = await asyncio.to_thread(cluster.until_promoted, replica)
        assert await crowd.first_hold(promoted_at, BACK_S) < BACK_S
        assert said_plainly(crowd)


async def test_a_blocking_client_follows_too(cluster: LocalCluster) -> None:
    """What reads the journal finds the partition after its slot has moved and after its primary has died."""
    options = EngineOptions(partition="p02", durability=Durability.MEMORY)
    async with await Engine.connect(cluster.url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 1, key="stock")
        client = blocking_client(cluster.url, "p02")
        journal = Journal(client, "p02")
        assert (place := await asyncio.to_thread(journal.head)) is not None and place.seq == 1
        source = cluster.primary_of("p02")
        target = another(cluster, source)
        cluster.move_slot(key_slot(b"p02"), source, target)
        assert await _head_of(journal) == place
        replica = cluster.replica_of(target)
        cluster.until_whole()
        await asyncio.to_thread(target.kill)
        await asyncio.to_thread(cluster.until_promoted, replica)
        assert await _head_of(journal) == place
        client.close()


async def _head_of(journal: Journal) -> object:
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                return await asyncio.to_thread(journal.head)
            except StoreUnavailable as error:
                assert not any(word in str(error) for word in WORDS)
                await asyncio.sleep(0.05)


async def test_without_a_node_there_is_no_store() -> None:
    """Nobody who answers knows the way: said as what it is."""
    with pytest.raises(StoreUnavailable, match="no node"):
        await Engine.connect("redis+cluster://127.0.0.1:1", options=EngineOptions(reply_timeout_ms=500))


def test_a_cluster_url_says_all_that_is_needed() -> None:
    """Hosts, ports and credentials; a database, which a cluster has not, and nonsense are refused."""
    found = cluster_of("redis+cluster://ann:p%40ss@a:1,[::1]:2,c", "p03")
    assert found is not None
    assert sorted(found.nodes()) == [("::1", 2), ("a", 1), ("c", 6_379)]
    assert found.login == ("ann", "p@ss")
    assert found.slot == key_slot(b"{p03}:meta")
    assert cluster_of("redis://a:1/0", "p03") is None
    for wrong in ("redis+cluster://", "redis+cluster://a:1/2", "redis+cluster://a:x"):
        with pytest.raises(Misconfigured):
            cluster_of(wrong, "p03")


async def test_the_ledger_takes_only_what_a_replica_has(cluster: LocalCluster) -> None:
    """What only a primary has, which may be replaced any moment, is not read; once the replica is back it is."""
    options = EngineOptions(durability=Durability.MEMORY)
    async with await Engine.connect(cluster.url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 100, key="stock")
        replica = cluster.replica_of(cluster.primary_of("p00"))
        with blocking_client(cluster.url, "p00") as client:
            journal = Journal(client, "p00", replicated=True)
            read = functools.partial(journal.read, "0", 10, 0)
            await _until_read(read, 1)
            replica.signal(signal.SIGSTOP)
            await engine.hold(key="alone", lines=[Line("shoe", 1)])
            with pytest.raises(StoreUnavailable, match="no replica"):
                await asyncio.to_thread(read)
            replica.signal(signal.SIGCONT)
            await _until_read(read, 2)


async def _until_read(read: Callable[[], list[Batch]], batches: int) -> None:
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                if len(await asyncio.to_thread(read)) == batches:
                    return
            except StoreUnavailable:
                await asyncio.sleep(0.05)
