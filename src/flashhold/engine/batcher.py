"""Requests to batches: what arrives while batches are in flight forms the next one. No timer, no wait when idle."""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from flashhold.domain import commands
from flashhold.domain.commands import Command
from flashhold.domain.errors import FlashHoldError, Overloaded, StoreUnavailable
from flashhold.engine.codec import AGAIN, Moment, Wire, decode, encode, encode_batch, unpack
from flashhold.engine.connection import ServerError
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions

FREEING = (commands.Commit, commands.Release, commands.Sweep, commands.ReadHold, commands.ReadStock)
"""Verbs that give stock or memory back: they must run when the server is out of memory."""


class Request(NamedTuple):
    """Commands that belong together and the future of their outcomes; `single`: of the one outcome."""

    commands: Sequence[Command]
    wires: Sequence[Wire]
    future: "asyncio.Future[Any]"
    single: bool
    weight: int
    """Lines and commands together: what bounds the time of a script."""
    given_up_at: float
    """When the loop's clock passes this, nobody asks again."""


class Batcher:
    """Gathers requests, sends batches, hands outcomes back."""

    def __init__(self, link: Link, options: EngineOptions) -> None:
        self._link = link
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Request] = deque()
        self._in_flight = 0
        self._scheduled = False
        self._nonces = itertools.count(1)
        self._sends: set[asyncio.Task[None]] = set()
        self.waiting_commands = 0
        link.on_ready = self._flush
        link.on_down = self._fail_waiting

    def submit(self, command: Command) -> "asyncio.Future[Any]":
        """The future of the command's outcome. Raises Overloaded when too many commands wait already."""
        return self._enqueue((command,), single=True)

    def submit_many(self, batch: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """The future of the outcomes of commands that share a batch, at most `batch_size_max` of them."""
        return self._enqueue(batch, single=False)

    def _enqueue(self, batch: Sequence[Command], *, single: bool) -> "asyncio.Future[Any]":
        if self.waiting_commands + len(batch) > self._options.waiting_max:
            raise Overloaded
        if self._link.down is not None:
            raise self._link.down
        future: asyncio.Future[Any] = self._loop.create_future()
        wires = [encode(command) for command in batch]
        weight = sum(map(_weight, batch))
        until = self._loop.time() + self._options.reply_timeout_ms / 1000
        self._waiting.append(Request(batch, wires, future, single, weight, until))
        self.waiting_commands += len(batch)
        if not self._scheduled and self._in_flight < self._options.batches_in_flight_max:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._scheduled = False
        if not self._link.ready:
            return
        while self._waiting and self._in_flight < self._options.batches_in_flight_max:
            requests = self._next_batch()
            if requests:
                self._send(requests)

    def _next_batch(self) -> list[Request]:
        """What waits, up to the limits; a sweep is the last of its batch, because it looks at what the others left."""
        requests: list[Request] = []
        size = weight = 0
        while self._waiting:
            request = self._waiting[0]
            size += len(request.commands)
            weight += request.weight
            if requests and (size > self._options.batch_size_max or weight > self._options.batch_weight_max):
                break
            self._waiting.popleft()
            self.waiting_commands -= len(request.commands)
            if request.future.cancelled():
                continue
            requests.append(request)
            if isinstance(request.commands[-1], commands.Sweep):
                break
        return requests

    def _send(self, requests: list[Request], *, freeing: bool = False) -> None:
        wires = [wire for request in requests for wire in request.wires]
        nonce = str(next(self._nonces))
        self._in_flight += 1
        task = self._loop.create_task(self._exchange(requests, wires, nonce, freeing))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _exchange(self, requests: list[Request], wires: list[Wire], nonce: str, freeing: bool) -> None:
        try:
            reply = await self._link.apply(nonce, encode_batch(wires), freeing=freeing)
            if isinstance(reply, ServerError):
                self._refused_by_server(requests, reply, freeing)
            else:
                self._settle(requests, nonce, unpack(reply))
        except FlashHoldError as error:
            _fail(requests, error)
        finally:
            self._in_flight -= 1
            if self._waiting:
                self._flush()

    def _settle(self, requests: list[Request], nonce: str, reply: Sequence[Any]) -> None:
        echoed, now_ms, epoch, seq, chain, replies = reply
        if echoed != nonce:
            self._link.abort("a reply came that belongs to another batch")
            raise StoreUnavailable("the outcome is unknown: a reply came that belongs to another batch")
        moment = Moment(self._options.partition, now_ms, epoch, seq, chain)
        self._link.seen(epoch, seq)
        at = 0
        for request in requests:
            count = len(request.commands)
            mine = replies[at : at + count]
            at += count
            if request.single:
                self._settle_single(request, mine[0], moment)
            elif any(one[0] == AGAIN for one in mine):
                self._ask_again(request)
            elif not request.future.done():
                decoded = map(decode, request.commands, request.wires, mine, itertools.repeat(moment))
                request.future.set_result(list(decoded))

    def _settle_single(self, request: Request, reply: Sequence[Any], moment: Moment) -> None:
        if request.future.done():
            return
        if reply[0] == AGAIN:
            self._ask_again(request)
        else:
            request.future.set_result(decode(request.commands[0], request.wires[0], reply, moment))

    def _ask_again(self, request: Request) -> None:
        """The script could not decide within its bound, because much was overdue; each time less is."""
        if self._loop.time() > request.given_up_at:
            _fail([request], StoreUnavailable("too much was overdue to decide in time; try again"))
            return
        self._waiting.appendleft(request)
        self.waiting_commands += len(request.commands)

    def _refused_by_server(self, requests: list[Request], error: Exception, freeing: bool) -> None:
        """Nothing of the batch was applied. Out of memory, what frees some is sent again by itself."""
        if not str(error).startswith("OOM") or freeing:
            raise self._link.translate(error)
        give_back = [request for request in requests if all(isinstance(one, FREEING) for one in request.commands)]
        others = [request for request in requests if request not in give_back]
        _fail(others, StoreUnavailable("the store is out of memory; it takes no new holds until some is freed"))
        if give_back:
            self._send(give_back, freeing=True)

    def _fail_waiting(self, error: FlashHoldError) -> None:
        requests = list(self._waiting)
        self._waiting.clear()
        self.waiting_commands = 0
        _fail(requests, error)

    async def drain(self) -> None:
        """Waits until nothing is waiting or in flight."""
        while self._sends or (self._waiting and self._link.ready):
            if self._sends:
                await asyncio.wait(set(self._sends))
            else:
                await asyncio.sleep(0)


def _weight(command: Command) -> int:
    match command:
        case commands.Hold(lines=lines) | commands.Amend(lines=lines):
            return 1 + len(lines)
        case commands.Sweep(expire_max, purge_max):
            return expire_max + purge_max
        case _:
            return 2


def _fail(requests: list[Request], error: FlashHoldError) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)
