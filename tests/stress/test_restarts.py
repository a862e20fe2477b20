"""HTTP processes replaced, restarted and ended under load: whoever was let in gets his answer."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from flashhold.ledger.api_keys import new_key, register
from tests.http.conftest import serving, valkey
from tests.http.test_serve import children, receive
from tests.stress.patient_client import Buyers

CONNECTIONS = 24


@pytest.fixture
def environ(redis_servers: Callable[[str], str], database_url: str) -> Iterator[dict[str, str]]:
    """The variables of a deployment whose admin's key is in KEY."""
    key = new_key()
    register(database_url, key, ["admin"])
    yield {"FLASHHOLD_REDIS_URL": valkey(redis_servers), "FLASHHOLD_DATABASE_URL": database_url, "KEY": key}


@asynccontextmanager
async def crowd(url: str, key: str, pause_seconds: float = 0.0, keep: bool = True) -> AsyncIterator[Buyers]:
    """Buyers that come before the block and leave after it."""
    await asyncio.to_thread(receive, url, key, "s", 1_000_000)
    buyers = Buyers(url, key, "s", pause_seconds=pause_seconds, keep=keep)
    coming = asyncio.create_task(buyers.come(CONNECTIONS))
    await asyncio.sleep(0.5)
    try:
        yield buyers
    finally:
        buyers.leave()
        await asyncio.wait_for(coming, 20)


async def replaced(parent: subprocess.Popen[bytes], before: list[int], seconds: float = 40) -> None:
    """Wait until none of these processes is left and as many others are there."""
    until = time.monotonic() + seconds
    while set(children(parent.pid)) & set(before) or len(children(parent.pid)) != len(before):
        assert time.monotonic() < until, "not replaced"
        await asyncio.sleep(0.05)


async def test_processes_are_replaced_one_by_one(environ: dict[str, str]) -> None:
    """SIGHUP under load: every process is another one, each request was answered 201, and no connection was cut."""
    with serving(2, **environ) as (parent, url):
        async with crowd(url, environ["KEY"]) as buyers:
            before = children(parent.pid)
            parent.send_signal(signal.SIGHUP)
            await replaced(parent, before)
            await asyncio.sleep(0.5)
        assert buyers.statuses().keys() == {201}, (buyers.statuses(), buyers.lost()[:3])
        assert buyers.refused == 0
        assert buyers.closed_politely > 0


async def test_quiet_connections_are_not_cut_either(environ: dict[str, str]) -> None:
    """The same for buyers who let half a second pass between requests: an answer closes an idle connection."""
    with serving(1, **environ) as (parent, url):
        async with crowd(url, environ["KEY"], pause_seconds=0.5) as buyers:
            before = children(parent.pid)
            parent.send_signal(signal.SIGHUP)
            await replaced(parent, before)
            await asyncio.sleep(1)
        assert buyers.statuses().keys() == {201}, (buyers.statuses(), buyers.lost()[:3])
        assert buyers.closed_politely >= CONNECTIONS


async def test_new_connections_meet_only_processes_that_are_ready(environ: dict[str, str]) -> None:
    """SIGHUP while every request comes on a connection of its own: a successor answers none before it can decide."""
    with serving(1, **environ) as (parent, url):
        async with crowd(url, environ["KEY"], keep=False) as buyers:
            before = children(parent.pid)
            parent.send_signal(signal.SIGHUP)
            await replaced(parent, before)
            await asyncio.sleep(0.5)
        assert buyers.statuses().keys() == {201}, (buyers.statuses(), buyers.asked[-3:])


async def test_one_process_is_told_to_end(environ: dict[str, str]) -> None:
    """SIGTERM to one HTTP process: it finishes, its parent makes another one, and nobody loses an answer."""
    with serving(2, **environ) as (parent, url):
        async with crowd(url, environ["KEY"]) as buyers:
            before = children(parent.pid)
            for pid in before:
                os.kill(pid, signal.SIGTERM)
                await asyncio.sleep(4)
            await replaced(parent, before)
        assert buyers.statuses().keys() == {201}, (buyers.statuses(), buyers.lost()[:3])


async def test_the_end_answers_what_was_let_in(environ: dict[str, str]) -> None:
    """SIGTERM to the parent: requests on connections that were served are answered; the last one says `close`."""
    with serving(2, **environ) as (parent, url):
        async with crowd(url, environ["KEY"]) as buyers:
            parent.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(parent.wait, 20) == 0
        assert not buyers.lost(), buyers.lost()[:3]
        assert buyers.statuses()[201] > CONNECTIONS
        assert buyers.closed_politely >= CONNECTIONS


async def test_sigterm_is_obeyed_while_processes_are_replaced(environ: dict[str, str]) -> None:
    """Somebody who asks for the end does not wait for all replacements."""
    with serving(2, **environ) as (parent, _):
        parent.send_signal(signal.SIGHUP)
        await asyncio.sleep(1)
        began = time.monotonic()
        parent.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(parent.wait, 20) == 0
        assert time.monotonic() - began < 10
