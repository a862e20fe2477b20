"""The hot connection: one socket, replies in the order of the calls, one write a loop tick.

redis-py's asyncio client needs a connection a task and re-sends a script after a time-out, which can apply it twice;
this one never sends anything a second time and has no timers of its own. Whatever goes wrong ends the connection, and
every call that waits on it with `StoreUnavailable`: a reply can then never be taken for that of another call.
"""

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url

from flashhold.domain.errors import Misconfigured, StoreUnavailable
from flashhold.engine.address import Watched, watched
from flashhold.engine.topology import ANSWER_TIMEOUT_S, Address, Cluster, Login

ServerError = hiredis.ReplyError
"""What a call's future holds when the server answered with an error; the call was carried out by nobody."""


def command_bytes(*arguments: bytes | str | int) -> bytes:
    """One command in the Redis protocol."""
    return cast(bytes, hiredis.pack_command(cast(Any, arguments)))


class HotConnection(asyncio.Protocol):
    """A pipelined connection. Make it with `connect`."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(protocolError=StoreUnavailable)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.lost = self._loop.create_future()
        """Done as soon as the connection is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (StoreUnavailable, IndexError):
            self.abort("the server's reply makes no sense")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc or "the server closed the connection"))

    def call(self, data: bytes) -> asyncio.Future[Any]:
        """Sends one command; the reply, or a `ServerError`, is the future's result."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None or self.lost.done():
            future.set_exception(StoreUnavailable("the connection to the store is gone"))
            return future
        self._waiting.append(future)
        self._transport.write(data)
        return future

    def abort(self, why: str) -> None:
        """Gives the connection up at once; every waiting call ends as unknown."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreUnavailable(f"the outcome is unknown: {why}"))


async def connect(url: str, timeout_s: float, cluster: Cluster | None = None) -> HotConnection:
    """Opens and authenticates a connection to `redis://`, `rediss://`, `unix://`, the primary of `redis+sentinel://`,
    or the one that serves the partition in `cluster`.

    Raises StoreUnavailable when nobody answers within the time, Misconfigured when the server refuses the credentials.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if cluster is not None:
                return await _to_primary(await _primary_in(cluster), cluster.login)
            if primary := watched(url):
                return await _to_primary(await _primary_now(primary), primary.login, primary.db)
            options = parse_url(url)
            if path := options.get("path"):
                _, connection = await loop.create_unix_connection(HotConnection, path)
            else:
                secure = ssl.create_default_context() if url.startswith("rediss:") else None
                host, port = options.get("host", "127.0.0.1"), options.get("port", 6379)
                _, connection = await loop.create_connection(HotConnection, host, port, ssl=secure)
            login = Login(options.get("username"), options.get("password"))
            await _introduce(connection, login, options.get("db", 0))
    except (TimeoutError, OSError) as error:
        raise StoreUnavailable(f"cannot reach the store: {error or 'no answer in time'}") from error
    return connection


async def _to_primary(address: Address, login: Login, database: int = 0) -> HotConnection:
    _, connection = await asyncio.get_running_loop().create_connection(HotConnection, *address)
    try:
        await _introduce(connection, login, database)
        await _expect_primary(connection)
    except BaseException:
        connection.abort("not the store that it should be")
        raise
    return connection


async def _introduce(connection: HotConnection, login: Login, database: int = 0) -> None:
    if login.password:
        await _expect_ok(connection, "AUTH", *((login.username,) if login.username else ()), login.password)
    if database:
        await _expect_ok(connection, "SELECT", database)


async def _primary_now(primary: Watched) -> Address:
    """The primary that the first Sentinel to answer names. Raises StoreUnavailable without one."""
    for address in primary.sentinels:
        try:
            found = await _asked(address, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", primary.name)
        except (OSError, StoreUnavailable):
            continue
        if isinstance(found, list):
            return Address(found[0].decode(), int(found[1]))
    raise StoreUnavailable(f"no Sentinel that answers knows a primary named {primary.name}")


async def _primary_in(cluster: Cluster) -> Address:
    """The primary that the first node to answer names for the partition. Raises StoreUnavailable without one,
    Misconfigured where a node refuses the credentials."""
    for address in cluster.nodes():
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                slots = await _asked(address, "CLUSTER", "SLOTS", login=cluster.login)
        except (OSError, TimeoutError, StoreUnavailable):
            continue
        if found := cluster.primary(slots, address):
            return found
    raise cluster.nobody()


async def _asked(address: Address, *question: str, login: Login | None = None) -> Any:
    """What one node answers, over a connection of its own."""
    _, node = await asyncio.get_running_loop().create_connection(HotConnection, *address)
    try:
        if login is not None:
            await _introduce(node, login)
        return await node.call(command_bytes(*question))
    finally:
        node.abort("asked")


async def _expect_primary(connection: HotConnection) -> None:
    """Whoever names the primary may name the old one for a moment, which may know already that it is none."""
    role = await connection.call(command_bytes("ROLE"))
    if not isinstance(role, list) or role[0] != b"master":
        raise StoreUnavailable("the server that is named as the primary is not the primary any more; trying again")


async def _expect_ok(connection: HotConnection, *arguments: str | int) -> None:
    reply = await connection.call(command_bytes(*arguments))
    if isinstance(reply, ServerError):
        connection.abort("the handshake failed")
        raise Misconfigured(f"the store refuses {arguments[0]}: {reply}")
