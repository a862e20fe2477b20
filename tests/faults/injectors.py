"""Ways to break a running deployment. Each is one plain step; when, how often and under what load is for the scenarios.

All act on pids and files of the deployment's own data directory, or on its stores' URLs past any proxy.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from flashhold.domain.model import PoolCounters
from flashhold.embedded import processes
from flashhold.engine.codec import unpack
from flashhold.engine.keys import partition_keys
from tests.faults.stack import OwnStack, Stack

PARTITION = "p00"
PIDS_PATIENCE_S = 40.0
_CLIENT_TIMEOUT_S = 10.0


class Skipped(Exception):
    """This machine cannot show the fault; the message says why."""


class Broken(NamedTuple):
    """`at`: when it was broken, `back_at`: when what was broken runs and answers again (`time.monotonic`)."""

    what: str
    at: float
    back_at: float


async def kill(stack: Stack, role: str, rng: random.Random) -> Broken:
    """kill -9, then wait until the role is back. Of an API either its parent, one HTTP process or all at once."""
    pid = await living(stack, role)
    victims, what = [pid], role
    if role == "api":
        children = [child for child in stack.http_pids() if child != pid]
        part = rng.choice(["parent", "process", "all"]) if children else "parent"
        what = f"api ({part})"
        if part != "parent":
            victims = [rng.choice(children)] if part == "process" else [pid, *children]
    at = time.monotonic()
    for victim in victims:
        processes.send(victim, signal.SIGKILL)
    if pid not in victims:  # its parent makes another one, which no pid file names
        return Broken(f"kill -9 {what}", at, time.monotonic())
    return Broken(f"kill -9 {what}", at, await stack.back(role, pid))


async def living(stack: Stack, role: str) -> int:
    """The pid of a role that runs now. Raises TimeoutError."""
    until = time.monotonic() + PIDS_PATIENCE_S
    while time.monotonic() < until:
        pid = stack.pid(role)
        if pid is not None and processes.alive(pid):
            return pid
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{role} does not run")


async def freeze(stack: Stack, role: str, seconds: float) -> Broken:
    """SIGSTOP to every process of a role, SIGCONT after so many seconds."""
    pid = await living(stack, role)
    if role == "api":
        pids = stack.http_pids()
    elif role in ("redis", "postgres"):
        pids = stack.server(role).leftovers()
    else:
        pids = [pid]
    at = time.monotonic()
    try:
        for one in pids:
            processes.send(one, signal.SIGSTOP)
        await asyncio.sleep(seconds)
    finally:
        for one in pids:
            processes.send(one, signal.SIGCONT)
    return Broken(f"SIGSTOP {role} for {seconds:.1f} s", at, time.monotonic())


async def keep_away(stack: OwnStack, role: str, seconds: float, *, kill_it: bool) -> Broken:
    """End a role (kill -9, or as its supervisor would) and start it again only after so many seconds."""
    pid = await living(stack, role)
    at = time.monotonic()
    with stack.away(role):
        processes.send(pid, signal.SIGKILL if kill_it else stack.server(role).stop_signal)
        await asyncio.sleep(seconds)
    return Broken(f"{role} away for {seconds:.0f} s", at, await stack.back(role, pid))


@asynccontextmanager
async def strained_fsync(pid: int, *, delay_ms: int = 0, error: str = "") -> AsyncIterator[None]:
    """Every fsync of a running process takes so much longer, or fails with `error` (`EIO`, `ENOSPC`), by strace.

    Raises Skipped where strace is not there or may not attach.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise Skipped("strace is not installed (apt-get install strace)")
    how = f"error={error}" if error else f"delay_enter={delay_ms * 1000}"
    tracer = await asyncio.create_subprocess_exec(
        strace, "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:{how}",
        "-o", "/dev/null", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert tracer.stderr is not None, "it was piped"
    said = (await asyncio.wait_for(tracer.stderr.readline(), 10)).decode()
    if "attached" not in said:
        await tracer.wait()
        raise Skipped(f"strace cannot attach here: {said.strip()}")
    try:
        yield
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGINT)  # detaches; a killed tracer could leave its thread stopped
            try:
                await asyncio.wait_for(tracer.wait(), 10)
            except TimeoutError:
                tracer.kill()
                await tracer.wait()


def flush_all(stack: Stack) -> None:
    """FLUSHALL: what a wrong window of a terminal does."""
    with client(stack) as connection:
        connection.flushall()


async def lose_data_directory(stack: OwnStack) -> Broken:
    """Redis killed and its append-only files gone, as with a lost disk."""
    pid = await living(stack, "redis")
    at = time.monotonic()
    with stack.away("redis"):
        processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not processes.alive(pid), 5)
        shutil.rmtree(stack.redis.directory / "appendonlydir")
    return Broken("Redis' data directory removed", at, await stack.back("redis", pid))


async def rewrite_aof(stack: OwnStack, change: Callable[[Path], None]) -> Broken:
    """Redis killed, its append-only file changed by `change` while it is down, Redis started on that."""
    pid = await living(stack, "redis")
    at = time.monotonic()
    with stack.away("redis"):
        processes.send(pid, signal.SIGKILL)
        processes.wait_until(lambda: not processes.alive(pid), 5)
        change(newest_aof(stack))
    return Broken("append-only file changed", at, await stack.back("redis", pid))


def newest_aof(stack: Stack) -> Path:
    """The file that the running server appends to."""
    files = (stack.redis.directory / "appendonlydir").glob("*.incr.aof")
    return max(files, key=lambda file: int(file.name.split(".")[-3]))


def cut_tail(part: float) -> Callable[[Path], None]:
    """Cuts this part of the file's bytes off its end."""

    def cut(file: Path) -> None:
        os.truncate(file, int(file.stat().st_size * (1 - part)))

    return cut


def flip_last_byte_behind(mark: bytes, offset: int) -> Callable[[Path], None]:
    """Changes one byte, so many behind the last occurrence of `mark` in the file."""

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        at = content.rfind(mark)
        if at < 0:
            raise Skipped(f"{mark!r} is nowhere in {file.name}")
        content[at + len(mark) + offset] ^= 0x01
        file.write_bytes(content)

    return flip


@asynccontextmanager
async def memory_limit(stack: Stack, room_bytes: int) -> AsyncIterator[None]:
    """`maxmemory` so much above what Redis uses now; no limit at the end."""
    with client(stack) as connection:
        connection.config_set("maxmemory", connection.info("memory")["used_memory"] + room_bytes)
    try:
        yield
    finally:
        with client(stack) as connection:
            connection.config_set("maxmemory", 0)


def client(stack: Stack) -> "redis.Redis":
    """A plain client of the store itself."""
    return redis.Redis.from_url(stack.redis_url, socket_timeout=_CLIENT_TIMEOUT_S)


Foreign = Callable[[Any, random.Random], Any]
"""Does it with a redis-py client, which is typed for text and bytes alike, and is therefore Any here."""


def _field(connection: Any, key: str, rng: random.Random, with_nul: bool = False) -> bytes:
    fields = [field for field in connection.hkeys(key) if not with_nul or b"\0" in field]
    if not fields:
        raise Skipped(f"{key} has nothing to change")
    return bytes(rng.choice(fields))


_KEYS = partition_keys(PARTITION)


def _spoil_counters(connection: Any, rng: random.Random) -> None:
    """One bit of a pool's counters, so that they say another number available and are valid to every reader."""
    field = _field(connection, _KEYS.stock, rng, with_nul=True)
    value = bytes(connection.hget(_KEYS.stock, field))
    before = PoolCounters("", "", *unpack(value))
    for place in range(len(value)):
        spoilt = value[:place] + bytes([value[place] ^ 0x01]) + value[place + 1 :]
        try:
            after = PoolCounters("", "", *unpack(spoilt))
        except (ValueError, TypeError):
            continue
        if isinstance(after.available, int) and after.available != before.available:
            connection.hset(_KEYS.stock, field, spoilt)
            return
    raise Skipped("no bit of these counters makes another number")


def _hincrby_meta(connection: Any, rng: random.Random) -> None:
    connection.hincrby(_KEYS.meta, "seq", rng.choice([-3, 5]))


def _pop_due(connection: Any, _: random.Random) -> None:
    # Not the next ones: whoever asks for an overdue hold would mend that by expiring it.
    if not connection.zpopmax(_KEYS.due, 20):
        raise Skipped("no deadline to remove")


def _add_journal(connection: Any, _: random.Random) -> None:
    last = connection.xrevrange(_KEYS.journal, count=1)
    if not last:
        raise Skipped("the journal is empty")
    connection.xadd(_KEYS.journal, dict(last[0][1]))


FOREIGN_WRITES: dict[str, Foreign] = {
    "del-stock": lambda connection, _: connection.delete(_KEYS.stock),
    "del-holds": lambda connection, _: connection.delete(_KEYS.holds),
    "del-due": lambda connection, _: connection.delete(_KEYS.due),
    "del-meta": lambda connection, _: connection.delete(_KEYS.meta),
    "hdel-pool": lambda c, rng: c.hdel(_KEYS.stock, _field(c, _KEYS.stock, rng, with_nul=True).decode()),
    "hdel-hold": lambda c, rng: c.hdel(_KEYS.holds, _field(c, _KEYS.holds, rng)),
    "hset-stock": lambda c, rng: c.hset(_KEYS.stock, _field(c, _KEYS.stock, rng, with_nul=True), b"\x90"),
    "counters": _spoil_counters,
    "hincrby-meta": _hincrby_meta,
    "zpop-due": _pop_due,
    "xadd-journal": _add_journal,
}
"""What somebody else may do to the keys of a partition, by name. Each is one command at a running server."""


def trim(stack: Stack) -> None:
    """XTRIM of the journal to its last record."""
    with client(stack) as connection:
        connection.xtrim(_KEYS.journal, maxlen=1, approximate=False)


@asynccontextmanager
async def worker_still(stack: Stack) -> AsyncIterator[None]:
    """The worker stands still within this block, which begins once the journal holds records that it has not read."""
    pid = await living(stack, "worker")
    processes.send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(1.0)  # under load
        yield
    finally:
        processes.send(pid, signal.SIGCONT)


async def repeatedly(step: Callable[[], Awaitable[Broken]], times: int, pause: Callable[[], float]) -> list[Broken]:
    """The step so many times, with a pause before each."""
    broken = []
    for _ in range(times):
        await asyncio.sleep(pause())
        broken.append(await step())
    return broken
