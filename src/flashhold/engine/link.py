"""The way to one store: connects, makes sure that it is the store we think, reconnects, and says when it is down."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flashhold.domain.errors import Emptied, FlashHoldError, Misconfigured, NotDurable, Recovering, StoreUnavailable
from flashhold.engine import durability
from flashhold.engine.address import cluster_of, watched
from flashhold.engine.connection import HotConnection, ServerError, command_bytes, connect
from flashhold.engine.journal import GENESIS_CHAIN, Place
from flashhold.engine.keys import partition_keys
from flashhold.engine.options import SHARED_BEFORE, EngineOptions
from flashhold.engine.scripts import SCHEMA, Script, load_scripts
from flashhold.engine.topology import ELSEWHERE, NOT_NOW, in_words, word_of

BACKOFF_MS = (20, 50, 100, 200, 500)
"""Pauses between attempts to connect; the last one repeats."""
NOT_NOW_MS = 25
"""Pause before a server is asked again that could not carry anything out at the moment."""


class Link:
    """One hot connection that is made again when it is lost.

    `ready`: calls can be sent. `down`: the error that new calls get, once the store has been away for
    `reply_timeout_ms` or cannot be trusted; None while there is hope.
    """

    def __init__(self, url: str, options: EngineOptions) -> None:
        self._url = url
        self._options = options
        self._cluster = cluster_of(url, options.partition)
        self._has_successors = self._cluster is not None or watched(url) is not None
        self._timeout_s = options.reply_timeout_ms / 1000
        self._scripts = load_scripts(options.lua_folder)
        self._keys = partition_keys(options.partition)
        self._connection: HotConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._not_before = (0, 0)
        self.furthest = (0, 0)
        self.furthest_before = (0, 0)
        self.ready = False
        self._pausing = False
        self.fsyncs = False
        """Whether the server has fsynced what it answers."""
        self._down: FlashHoldError | None = None
        self.on_ready: Callable[[], None] = lambda: None
        self.on_down: Callable[[FlashHoldError], None] = lambda _: None
        keys = (len(self._keys), *self._keys)
        self._apply = {
            (freeing, by_source): _prefix(script, keys, by_source)
            for freeing, script in ((False, self._scripts.apply), (True, self._scripts.apply_freeing))
            for by_source in (False, True)
        }

    @property
    def down(self) -> FlashHoldError | None:
        # A fresh one each time: every caller that raises an error hangs its frames on it, and they would never go.
        return None if self._down is None else copy.copy(self._down)

    async def open(self) -> None:
        """Makes the first connection. Raises what stands in the way; from then on reconnects by itself."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Ends the connection; what is in flight ends as unknown, and what comes later is refused."""
        self.ready, self._down = False, StoreUnavailable("the engine was closed")
        self.on_down(self._down)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None:
            self._connection.abort("the engine was closed")

    async def call(self, *arguments: bytes | str | int) -> Any:
        """One command; its reply. Raises StoreUnavailable, also for an error that the server answers."""
        (reply,) = await self._together([arguments])
        return reply

    async def _together(self, commands: Sequence[tuple[bytes | str | int, ...]]) -> list[Any]:
        """The replies to commands that are sent together, or the accident that the first error among them means."""
        until = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            await self._hope(until)
            connection = self._connected()
            futures = [connection.call(command_bytes(*command)) for command in commands]
            replies: list[Any] = await self._timed(asyncio.gather(*futures), until)
            refused = next((reply for reply in replies if isinstance(reply, ServerError)), None)
            if refused is None:
                return replies
            if not self.gives_way(refused) or asyncio.get_running_loop().time() > until:
                raise self.translate(refused)

    async def read(self, key: str, fields: Sequence[str]) -> tuple[int, list[Any]]:
        """The partition's epoch and these fields of one of its hashes, at one instant.

        Raises Recovering where the store holds no state of the partition, or less than it has shown: what such a store
        does not know is not therefore unknown.
        """
        meta = ("HMGET", self._keys.meta, "epoch", "seq")
        *_, ((epoch, seq), values) = await self._together([("MULTI",), meta, ("HMGET", key, *fields), ("EXEC",)])
        if epoch is None:
            raise Emptied
        self._refuse_lost_tail(int(epoch), int(seq))
        return int(epoch), values

    def apply(self, nonce: str, batch: bytes, *, freeing: bool, by_source: bool = False) -> "asyncio.Future[Any]":
        """Runs a batch. The future's result is the script's reply, or the `ServerError` that the server answered
        before it began; its exception, StoreUnavailable, means that the outcome is unknown. `by_source` brings the
        script along, for a server that has forgotten it."""
        prefix = self._apply[freeing, by_source]
        data = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (prefix, len(nonce), nonce.encode(), len(batch), batch)
        return self._connected().call(data)

    def wait_for_replica(self) -> "asyncio.Future[Any]":
        """How many replicas have what this connection has written so far, once one has or the time is over. `WAIT`
        speaks of its own connection only, so it goes the way of the batches, right behind the one that it is for."""
        return self._connected().call(command_bytes("WAIT", 1, int(self._timeout_s * 900)))

    def wait_for_disk(self) -> "asyncio.Future[Any]":
        """The same for the server's own disk, where the server has `WAITAOF` (from 7.2 on): [fsynced here, …]."""
        return self._connected().call(command_bytes("WAITAOF", 1, 0, int(self._timeout_s * 900)))

    async def _hope(self, until: float) -> None:
        """Waits while the connection is being made anew, until then by the loop's clock."""
        loop = asyncio.get_running_loop()
        while not self.ready and self._down is None and loop.time() < until:  # noqa: ASYNC110  # three conditions, rarely
            await asyncio.sleep(BACKOFF_MS[0] / 1000)

    def _connected(self) -> HotConnection:
        if self._connection is None or not self.ready:
            raise self.down or StoreUnavailable("not connected to the store")
        return self._connection

    async def _timed(self, reply: Awaitable[Any], until: float | None = None) -> Any:
        try:
            async with asyncio.timeout_at(until or asyncio.get_running_loop().time() + self._timeout_s):
                return await reply
        except TimeoutError:
            self.abort("no reply in time")
            raise StoreUnavailable("the outcome is unknown: the store did not reply in time") from None

    def seen(self, epoch: int, seq: int) -> None:
        """Raises Recovering where the store stands before what it has shown: what it has answered there rests on a
        store that has lost acknowledged entries."""
        try:
            self._refuse_lost_tail(epoch, seq)
        except Recovering:
            self.abort("the store has gone back")
            raise

    def shown(self, epoch: int, seq: int) -> None:
        """Notes a place that callers are told of. Not before it is confirmed: what a lagging replica lacks when it
        takes over was acknowledged to nobody, and must not keep anybody from using it."""
        if (epoch, seq) <= self._not_before:
            return
        self._not_before = (epoch, seq)
        if epoch > self.furthest[0]:
            self.furthest_before = self.furthest
        self.furthest = max(self.furthest, (epoch, seq))

    def abort(self, why: str) -> None:
        """Gives the present connection up."""
        self.ready = False
        if self._connection is not None:
            self._connection.abort(why)

    def gives_way(self, error: Exception) -> bool:
        """Whether what this error refused can be sent again, once the link is ready: it was not carried out, and this
        server will carry it out in a moment, or connecting anew leads to another that does."""
        word = word_of(error)
        if word in ELSEWHERE and self._has_successors:
            self._leave(in_words(error) or word)
            return True
        if word in NOT_NOW and self._cluster is not None:
            self._pause()
            return True
        return False

    def _leave(self, why: str) -> None:
        """Gives the connection up as soon as it has answered what was sent before: of that, too, the answer counts."""
        connection = self._connection
        if connection is not None and not connection.lost.done():
            self.ready, self._pausing = False, False
            late = asyncio.get_running_loop().call_later(self._timeout_s, connection.abort, why)

            def leave(_: object) -> None:
                late.cancel()
                connection.abort(why)

            connection.call(command_bytes("PING")).add_done_callback(leave)

    def _pause(self) -> None:
        """Nothing more is sent for a moment."""
        connection = self._connection
        if self.ready and connection is not None:
            self.ready, self._pausing = False, True
            asyncio.get_running_loop().call_later(NOT_NOW_MS / 1000, self._resume, connection)

    def _resume(self, connection: HotConnection) -> None:
        if self._pausing and connection is self._connection and not connection.lost.done():
            self.ready, self._pausing = True, False
            self.on_ready()

    def translate(self, error: Exception) -> FlashHoldError:
        """The accident that a server's error means."""
        text = str(error)
        if text.startswith("UNINSTALLED"):
            return Recovering()
        if sentence := in_words(error):
            if word_of(error) in ELSEWHERE:
                self._leave(sentence)
            return StoreUnavailable(f"{sentence}; the command was not carried out")
        if text.startswith("NOREPLICAS"):
            return NotDurable("the store has no replica that is up to date, so it takes no writes")
        return StoreUnavailable(f"the store answered: {text}")

    async def install(self, *, epoch: int = 1, seq: int = 0, chain: str = GENESIS_CHAIN) -> None:
        """Makes the partition unless it is there. Raises Misconfigured when it has other settings or another schema."""
        shared = self._options.shared()
        settings = [item for pair in shared.items() for item in pair]
        script = self._scripts.install
        found = await self.call("EVAL", script.source, 1, self._keys.meta, epoch, seq, chain, SCHEMA, *settings)
        self._check_meta(_text_map(found))

    def _check_meta(self, meta: dict[str, str]) -> None:
        if meta.get("schema") != str(SCHEMA):
            raise Misconfigured(f"the store has schema {meta.get('schema')}, this FlashHold speaks {SCHEMA}")
        stored = {**SHARED_BEFORE, **meta}
        differing = [f"{name} {stored.get(name)}, here {value}" for name, value in self._options.shared().items()
                     if stored.get(name) != value]  # fmt: skip
        if differing:
            raise Misconfigured("settings that all processes must share differ; stored: " + "; ".join(differing))

    async def place(self) -> Place:
        """Where the partition stands. Raises Emptied when the store holds no state of it."""
        until = asyncio.get_running_loop().time() + self._timeout_s
        await self._hope(until)
        return await self._place_over(self._connected(), until)

    async def _place_over(self, connection: HotConnection, until: float | None = None) -> Place:
        asked = command_bytes("HMGET", self._keys.meta, "epoch", "seq", "chain", "clock")
        reply = await self._timed(connection.call(asked), until)
        if isinstance(reply, ServerError):
            raise self.translate(reply)
        if reply[0] is None:
            raise Emptied
        epoch, seq, chain, clock = reply
        return Place(self._options.partition, int(epoch), int(seq), chain.decode(), int(clock))

    async def inspect(self) -> list[bytes]:
        """The flat reply of lua/inspect.lua."""
        reply: list[bytes] = await self.call("EVAL", self._scripts.inspect.source, 4, *self._keys[:4])
        return reply

    async def _connect(self) -> None:
        connection = await connect(self._url, self._timeout_s, self._cluster)
        try:
            await self._load_scripts(connection)
            settings = await self._timed(connection.call(command_bytes("CONFIG", "GET", "append*")))
            known = {} if isinstance(settings, ServerError) else _text_map(settings)
            durability.require(self._options.durability, known)
            self.fsyncs = durability.fsyncs(known)
            stored = await self._timed(connection.call(command_bytes("HGETALL", self._keys.meta)))
            if isinstance(stored, ServerError):
                raise StoreUnavailable(in_words(stored) or f"the store answered: {stored}")
            meta = _text_map(stored)
            if meta:
                self._check_meta(meta)
            stands = int(meta.get("epoch", 0)), int(meta.get("seq", 0))
            if self._options.durability == durability.Durability.MEMORY:
                # Another copy may be behind this one with nothing promised broken; the ledger decides that alone.
                self._not_before = min(self._not_before, stands)
            self._refuse_lost_tail(*stands)
            if self._options.admit is not None:
                await self._options.admit(lambda: self._place_over(connection))
        except BaseException:
            connection.abort("the store is not what this engine needs")
            raise
        self._connection = connection
        self.ready, self._pausing, self._down = True, False, None
        self.on_ready()

    def _refuse_lost_tail(self, epoch: int, seq: int) -> None:
        """A store that stands before what it has shown us has lost acknowledged entries: nothing is sold from it."""
        if (epoch, seq) < self._not_before:
            raise Recovering(
                f"the store stands at epoch {epoch}, seq {seq}, but it has shown epoch {self._not_before[0]}, "
                f"seq {self._not_before[1]}: acknowledged entries are missing"
            )

    async def _load_scripts(self, connection: HotConnection) -> None:
        for script in self._scripts:
            reply = await self._timed(connection.call(command_bytes("SCRIPT", "LOAD", script.source)))
            if isinstance(reply, ServerError):
                raise StoreUnavailable(f"the store refuses a script: {reply}")

    async def _keep(self) -> None:
        """Reconnects for ever; says `down` once the store has been away for longer than a reply may take."""
        while True:
            assert self._connection is not None
            await self._connection.lost
            self.ready = False
            lost_at = asyncio.get_running_loop().time()
            attempt = 0
            while not self.ready:
                try:
                    await self._connect()
                except FlashHoldError as error:
                    if isinstance(error, Recovering) or asyncio.get_running_loop().time() - lost_at > self._timeout_s:
                        self._down = error
                        self.on_down(error)
                    await asyncio.sleep(BACKOFF_MS[min(attempt, len(BACKOFF_MS) - 1)] / 1000)
                    attempt += 1


def _prefix(script: Script, keys: tuple[int | str, ...], by_source: bool) -> bytes:
    """The part of a call that is the same for every batch: all but the two last arguments."""
    name = ("EVAL", script.source) if by_source else ("EVALSHA", script.sha)
    return command_bytes(*name, *keys, "", "").removesuffix(b"$0\r\n\r\n$0\r\n\r\n")


def _text_map(flat: list[bytes]) -> dict[str, str]:
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
