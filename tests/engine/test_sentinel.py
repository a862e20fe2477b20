"""Sentinel: the engine finds the primary, and the promoted replica after it has gone."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flashhold import Applied, Engine, EngineOptions, Line
from flashhold.domain.errors import FlashHoldError, Misconfigured, StoreUnavailable
from flashhold.embedded.binaries import redis_binaries
from flashhold.embedded.child import Child
from flashhold.engine.address import blocking_client, watched
from flashhold.engine.durability import Durability
from tests.conftest import free_port

BACK_S = 5.0
"""After the promotion, holds must be answered again."""


def _port(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.connection_pool.connection_kwargs["port"])


@pytest.fixture
def sentinel(tmp_path: Path, start_redis: Callable[..., tuple[Child, str]]) -> Iterator[tuple[str, Child, str]]:
    """A primary with a replica, and a Sentinel that watches them: its URL, the primary's process, the replica's URL."""
    (primary, url), (_, replica) = start_redis(), start_redis()
    with redis.Redis.from_url(replica) as follower:
        follower.replicaof("127.0.0.1", str(_port(url)))
    port = free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {_port(url)} 1\n"
        "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 5000\n"
    )
    words = [str(next(iter(redis_binaries())).path), str(settings), "--sentinel"]
    with (tmp_path / "sentinel.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        yield f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/shop", primary, replica
        process.terminate()


async def test_a_failover_is_followed(sentinel: tuple[str, Child, str]) -> None:
    """The primary dies; once the replica is promoted holds go on there, and nothing acknowledged is missing."""
    url, primary, replica = sentinel
    await _until_watched(url, replica)
    options = EngineOptions(durability=Durability.REPLICA, reply_timeout_ms=1_000)
    async with await Engine.connect(url, options=options) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 100, key="stock")
        made = await engine.hold(key="before", lines=[Line("shoe", 1)])
        assert isinstance(made, Applied)
        os.kill(primary.pid or 0, signal.SIGKILL)
        await _until_promoted(replica)
    async with await _connected_again(url) as engine:
        assert (await engine.read_hold(made.value.id)).value == made.value
        assert isinstance(await engine.hold(key="after", lines=[Line("shoe", 1)]), Applied)
    async with asyncio.timeout(BACK_S):
        while not _answers_as_primary(url):  # noqa: ASYNC110  # the Sentinel has no event for it
            await asyncio.sleep(0.05)


async def test_an_engine_that_stays_finds_the_new_primary(sentinel: tuple[str, Child, str]) -> None:
    """No restart: the engine that lived through it answers again within seconds of the promotion."""
    url, primary, replica = sentinel
    await _until_watched(url, replica)
    async with await Engine.connect(url, options=EngineOptions(reply_timeout_ms=1_000)) as engine:
        await engine.install()
        await engine.move("receipt", "shoe", 100, key="stock")
        with redis.Redis.from_url(replica) as follower:
            async with asyncio.timeout(10):
                while follower.hget("{p00}:meta", "seq") != b"1":  # noqa: ASYNC110  # the server has no event for it
                    await asyncio.sleep(0.02)
        os.kill(primary.pid or 0, signal.SIGKILL)
        await _until_promoted(replica)
        async with asyncio.timeout(BACK_S):
            while True:
                try:
                    answer = await engine.hold(key="after", lines=[Line("shoe", 1)])
                except FlashHoldError:
                    await asyncio.sleep(0.05)
                else:
                    break
        assert isinstance(answer, Applied)


def _answers_as_primary(url: str) -> bool:
    with blocking_client(url, "p00") as client:
        try:
            return bool(client.info("replication")["role"] == "master")
        except redis.RedisError:
            return False


async def _until_watched(url: str, replica: str) -> None:
    """Until the replica follows and the Sentinel knows it, without which it cannot promote one."""
    with redis.Redis.from_url(replica) as follower:
        async with asyncio.timeout(30):
            while follower.info("replication").get("master_link_status") != "up":  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.05)
    primary = watched(url)
    assert primary is not None
    host, port = primary.sentinels[-1]
    with redis.Redis(host=host, port=port) as client:
        async with asyncio.timeout(30):
            while True:
                try:
                    if client.sentinel_master("shop")["num-slaves"] >= 1:  # type: ignore[no-untyped-call]  # redis-py's
                        return
                except (redis.RedisError, KeyError):
                    pass
                await asyncio.sleep(0.1)


async def _until_promoted(replica: str) -> None:
    with redis.Redis.from_url(replica) as client:
        async with asyncio.timeout(30):
            while client.info("replication")["role"] != "master":  # noqa: ASYNC110  # the server has no event for it
                await asyncio.sleep(0.05)


async def _connected_again(url: str) -> Engine:
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                return await Engine.connect(url)
            except FlashHoldError:
                await asyncio.sleep(0.05)


async def test_without_a_sentinel_there_is_no_store() -> None:
    """Nobody who answers knows the primary: said as what it is."""
    with pytest.raises(StoreUnavailable, match="no Sentinel"):
        await Engine.connect("redis+sentinel://127.0.0.1:1/shop", options=EngineOptions(reply_timeout_ms=500))


def test_a_sentinel_url_says_all_that_is_needed() -> None:
    """Hosts, ports, the name, the database, the server's own credentials; what is missing is said."""
    found = watched("redis+sentinel://ann:p%40ss@a:1,[::1]:2,c/shop/3")
    assert found is not None
    assert found.sentinels == (("a", 1), ("::1", 2), ("c", 26_379))
    assert (found.name, found.db, *found.login) == ("shop", 3, "ann", "p@ss")
    assert watched("redis://a:1/0") is None
    for wrong in ("redis+sentinel://a:1", "redis+sentinel:///shop", "redis+sentinel://a:x/shop"):
        with pytest.raises(Misconfigured):
            watched(wrong)
