"""Requests to batches: what arrives while batches are in flight forms the next one. No timer, no wait when idle."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flashhold.domain import commands
from flashhold.domain.commands import Command
from flashhold.domain.errors import FlashHoldError, Overloaded, StoreUnavailable
from flashhold.engine.codec import Moment, unpack
from flashhold.engine.confirming import Confirming, Request, fail
from flashhold.engine.connection import ServerError
from flashhold.engine.durability import Durability, replicated
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.runs import Encoded, decode_replies, encode_batch

FREEING = (commands.Commit, commands.Release, commands.Sweep, commands.ReadHold, commands.ReadStock)
"""Verbs that give stock or memory back: they must run when the server is out of memory."""


class Flight(NamedTuple):
    """A batch on its way. `freeing`: through the script that may run out of memory; `again`: sent a second time."""

    requests: list[Request]
    commands: Sequence[Command]
    encoded: Encoded
    nonce: str
    freeing: bool
    again: bool = False


class Batcher:
    """Gathers requests, sends batches, hands outcomes back."""

    def __init__(self, link: Link, options: EngineOptions) -> None:
        self._link = link
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Request] = deque()
        self._flying: dict[str, Flight] = {}
        self._confirming = Confirming(link, options, self._ask_again, self._rest)
        self._scheduled = False
        self._nonces = itertools.count(1)
        self._idle = asyncio.Event()
        self._giving_up: asyncio.TimerHandle | None = None
        self._timeout_s = options.reply_timeout_ms / 1000
        self.waiting_commands = 0
        link.on_ready = self._flush
        link.on_down = self._fail_waiting

    def submit(self, command: Command) -> "asyncio.Future[Any]":
        """The future of the command's outcome. Raises Overloaded when too many commands wait already."""
        return self._enqueue((command,), single=True)

    def submit_many(self, batch: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """The future of the outcomes of commands that share a batch, at most `batch_size_max` of them."""
        return self._enqueue(batch, single=False)

    def pieces(self, batch: Sequence[Command]) -> Iterator[Sequence[Command]]:
        """The commands in runs that each fit one batch."""
        start = weight = 0
        for at, command in enumerate(batch):
            more = weight_of(command)
            too_many = at - start == self._options.batch_size_max
            if at > start and (too_many or weight + more > self._options.batch_weight_max):
                yield batch[start:at]
                start, weight = at, 0
            weight += more
        if batch:
            yield batch[start:]

    def _enqueue(self, batch: Sequence[Command], *, single: bool) -> "asyncio.Future[Any]":
        if self.waiting_commands + len(batch) > self._options.waiting_max:
            raise Overloaded
        if self._link.down is not None:
            raise self._link.down
        future: asyncio.Future[Any] = self._loop.create_future()
        weight = sum(map(weight_of, batch))
        until = self._loop.time() + self._timeout_s
        self._waiting.append(Request(batch, future, single, weight, until))
        self.waiting_commands += len(batch)
        if self._giving_up is None:
            self._giving_up = self._loop.call_at(until, self._give_up)
        if not self._scheduled and len(self._flying) < self._options.batches_in_flight_max:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._scheduled = False
        if not self._link.ready:
            return
        while self._waiting and len(self._flying) < self._options.batches_in_flight_max:
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
        commands = requests[0].commands if len(requests) == 1 else [c for one in requests for c in one.commands]
        try:
            encoded = encode_batch(commands)
        except (ValueError, OverflowError) as error:
            # What cannot be encoded (a lone surrogate, an integer beyond 64 bits) is its own caller's failure only.
            if len(requests) == 1:
                fail(requests, error)
            else:
                for one in requests:
                    self._send([one], freeing=freeing)
            return
        self._launch(Flight(requests, commands, encoded, str(next(self._nonces)), freeing))

    def _launch(self, flight: Flight) -> None:
        """Callbacks, not a task: in a quiet shop most batches are of one command, and a task costs more than that."""
        data = flight.encoded.data
        reply = self._link.apply(flight.nonce, data, freeing=flight.freeing, by_source=flight.again)
        self._flying[flight.nonce] = flight
        late = self._loop.call_later(self._timeout_s, self._link.abort, "no reply in time")
        if self._options.durability == Durability.REPLICA:
            replicas = self._link.wait_for_replica()
            replicas.add_done_callback(_heard)
            reply.add_done_callback(lambda _: self._on_replicas(flight, late, reply, replicas))
        else:
            reply.add_done_callback(lambda _: self._landed(flight, late, reply))

    def _on_replicas(
        self,
        flight: Flight,
        late: asyncio.TimerHandle,
        reply: "asyncio.Future[Any]",
        replicas: "asyncio.Future[Any]",
    ) -> None:
        """A batch that was carried out waits for the replicas; one that was refused has nothing to wait for."""
        if reply.exception() is None and not isinstance(reply.result(), ServerError):
            replicas.add_done_callback(lambda _: self._landed(flight, late, reply, replicas))
        else:
            self._landed(flight, late, reply)

    def _landed(
        self,
        flight: Flight,
        late: asyncio.TimerHandle,
        done: "asyncio.Future[Any]",
        replicas: "asyncio.Future[Any] | None" = None,
    ) -> None:
        late.cancel()
        del self._flying[flight.nonce]
        try:
            if self._waiting:
                self._flush()  # first, so that the server has work while the answers are read
            reply = done.result()
            if isinstance(reply, ServerError):
                self._refused_by_server(flight, reply)
            else:
                if replicas is not None:
                    replicated(replicas.result())
                self._settle(flight, unpack(reply))
        except FlashHoldError as error:
            fail(flight.requests, error)
        except Exception as error:
            fail(flight.requests, error)  # a bug of ours: whoever waits must not wait for ever
            raise
        finally:
            if self._waiting:
                self._flush()
            if not self._flying:
                self._idle.set()

    def _settle(self, flight: Flight, reply: Sequence[Any]) -> None:
        echoed, now_ms, epoch, seq, chain, raised, replies = reply
        if echoed != flight.nonce:
            self._link.abort("a reply came that belongs to another batch")
            raise StoreUnavailable("the outcome is unknown: a reply came that belongs to another batch")
        moment = Moment(self._options.partition, now_ms, epoch, seq, chain, raised)
        self._link.seen(epoch, seq)
        outcomes = decode_replies(flight.commands, flight.encoded.parts, replies, moment)
        self._confirming.settle(flight.requests, outcomes, moment)

    def _ask_again(self, request: Request) -> None:
        """The script could not decide within its bound, because much was overdue; each time less is."""
        if self._loop.time() > request.given_up_at:
            fail([request], StoreUnavailable("too much was overdue to decide in time; try again"))
            return
        if self._giving_up is None:
            self._giving_up = self._loop.call_at(request.given_up_at, self._give_up)
        self._waiting.appendleft(request)
        self.waiting_commands += len(request.commands)

    def _refused_by_server(self, flight: Flight, error: Exception) -> None:
        """Nothing of the batch was applied, so what can be mended is sent once more."""
        text = str(error)
        if text.startswith("NOSCRIPT") and not flight.again:
            # The server has forgotten its scripts (SCRIPT FLUSH) and has run nothing. Sent with its source the batch
            # cannot meet that again, however often somebody flushes.
            self._launch(flight._replace(again=True))
        elif text.startswith("OOM") and not flight.freeing:
            # Out of memory, what gives stock or memory back is sent by itself, with leave to use the last reserves.
            give_back = [one for one in flight.requests if all(isinstance(c, FREEING) for c in one.commands)]
            others = [one for one in flight.requests if one not in give_back]
            fail(others, StoreUnavailable("the store is out of memory; it takes no new holds until some is freed"))
            if give_back:
                self._send(give_back, freeing=True)
        elif self._link.gives_way(error):
            self._put_back(flight.requests)
        else:
            raise self._link.translate(error)

    def _put_back(self, requests: list[Request]) -> None:
        """They wait in the place that their age gives them, for as long as their callers do."""
        now = self._loop.time()
        late = [request for request in requests if request.given_up_at <= now]
        fail(late, StoreUnavailable("the partition is being moved; the command was not carried out in time"))
        left = [request for request in requests if not request.future.done()]
        self._waiting = deque(heapq.merge(left, self._waiting, key=lambda request: request.given_up_at))
        self.waiting_commands += sum(len(request.commands) for request in left)
        if left and self._giving_up is None:
            self._giving_up = self._loop.call_at(left[0].given_up_at, self._give_up)

    def _give_up(self) -> None:
        """Tells whoever has waited for his time. One timer for all: it goes off once in that time, and while answers
        come it finds nobody. An answer that comes later is of no use; the connection is given up by its own timer."""
        now = self._loop.time()
        unsent: list[Request] = []
        while self._waiting and self._waiting[0].given_up_at <= now:
            request = self._waiting.popleft()
            self.waiting_commands -= len(request.commands)
            unsent.append(request)
        flying = [one for flight in self._flying.values() for one in flight.requests if not one.future.done()]
        late = [one for one in flying if one.given_up_at <= now]
        left = [one.given_up_at for one in (*flying, *itertools.islice(self._waiting, 1)) if one.given_up_at > now]
        self._giving_up = self._loop.call_at(min(left), self._give_up) if left else None
        fail(unsent, StoreUnavailable("the store is away or too slow; the command was not carried out in time"))
        fail(late, StoreUnavailable("the outcome is unknown: the store did not reply in time"))
        self._idle.set()

    def _fail_waiting(self, error: FlashHoldError) -> None:
        requests = list(self._waiting)
        self._waiting.clear()
        self.waiting_commands = 0
        fail(requests, error)
        self._idle.set()

    def _rest(self) -> None:
        if not self._flying:
            self._idle.set()

    async def confirm(self, level: Durability, epoch: int, seq: int) -> None:
        """As `Engine.confirm`."""
        await self._confirming.confirmed(level, epoch, seq)

    async def drain(self) -> None:
        """Waits until nothing is waiting or in flight."""
        while self._flying or self._confirming.busy or (self._waiting and self._link.ready):
            self._idle.clear()
            await self._idle.wait()


def weight_of(command: Command) -> int:
    """About as many members as the command's encoding has."""
    return 8 + 3 * len(getattr(command, "lines", None) or ())


def _heard(replicas: "asyncio.Future[Any]") -> None:
    """Takes note of an error that nobody asks for, or asyncio would log it as forgotten."""
    replicas.exception()
