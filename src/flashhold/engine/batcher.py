"""Requests to batches: what arrives while batches are in flight forms the next one. No timer, no wait when idle."""

import asyncio
import copy
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flashhold.domain import commands
from flashhold.domain.commands import Command
from flashhold.domain.errors import FlashHoldError, NotDurable, Overloaded, StoreUnavailable
from flashhold.domain.outcomes import Outcome
from flashhold.engine.codec import Moment, unpack
from flashhold.engine.connection import ServerError
from flashhold.engine.durability import Durability, in_ledger, on_disk, replicated
from flashhold.engine.link import Link
from flashhold.engine.options import EngineOptions
from flashhold.engine.runs import Encoded, decode_replies, encode_batch, levels_asked

FREEING = (commands.Commit, commands.Release, commands.Sweep, commands.ReadHold, commands.ReadStock)
"""Verbs that give stock or memory back: they must run when the server is out of memory."""


class Request(NamedTuple):
    """Commands that belong together and the future of their outcomes; `single`: of the one outcome."""

    commands: Sequence[Command]
    future: "asyncio.Future[Any]"
    single: bool
    weight: int
    """What bounds the time of a script: see `weight_of`."""
    given_up_at: float
    """When the loop's clock passes this, its caller is told that there is no answer."""


class Flight(NamedTuple):
    """A batch on its way. `freeing`: through the script that may run out of memory; `again`: sent a second time."""

    requests: list[Request]
    commands: Sequence[Command]
    encoded: Encoded
    nonce: str
    freeing: bool
    again: bool = False


class Answered(NamedTuple):
    """A request and what its commands have come to; None: not decided yet."""

    request: Request
    outcomes: list[Outcome[Any] | None]


class Batcher:
    """Gathers requests, sends batches, hands outcomes back."""

    def __init__(self, link: Link, options: EngineOptions) -> None:
        self._link = link
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Request] = deque()
        self._flying: dict[str, Flight] = {}
        self._confirming: set[asyncio.Task[None]] = set()
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
                _fail(requests, error)
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
            reply.add_done_callback(
                lambda _: replicas.add_done_callback(lambda _: self._landed(flight, late, reply, replicas))
            )
        else:
            reply.add_done_callback(lambda _: self._landed(flight, late, reply))

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
            _fail(flight.requests, error)
        except Exception as error:
            _fail(flight.requests, error)  # a bug of ours: whoever waits must not wait for ever
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
        by_level: dict[Durability, list[Answered]] = {}
        at = 0
        for request in flight.requests:
            count = len(request.commands)
            mine = outcomes[at : at + count] if count < len(outcomes) else outcomes
            at += count
            level = self._options.durability if not raised else self._level_of(mine, raised)
            by_level.setdefault(level, []).append(Answered(request, mine))
        for level, answered in by_level.items():
            if self._is_met(level):
                self._tell(answered)
            else:
                self._confirm(level, answered, moment)

    def _level_of(self, outcomes: Sequence[Outcome[Any] | None], raised: dict[str, str]) -> Durability:
        """The deployment's level, or a higher one that the policy of an outcome's SKU asks for."""
        levels = [Durability(level) for outcome in outcomes for level in levels_asked(outcome, raised)]
        return max([self._options.durability, *levels], key=lambda level: level.rank)

    def _is_met(self, level: Durability) -> bool:
        """Whether the reply has come no earlier than the level allows: the rest has to be confirmed."""
        if level == Durability.DISK:
            return self._link.fsyncs
        return level == Durability.MEMORY or (level == Durability.REPLICA == self._options.durability)

    def _confirm(self, level: Durability, answered: list[Answered], moment: Moment) -> None:
        """Tells the outcomes once the stores have confirmed all that the partition had decided by then: a replay waits
        as the first answer did."""

        until = max(one.request.given_up_at for one in answered)

        async def confirm() -> None:
            try:
                async with asyncio.timeout_at(until):
                    await self._confirmed(level, moment)
            except TimeoutError:
                _fail([one.request for one in answered], NotDurable("the stores have not confirmed the write in time"))
            except FlashHoldError as error:
                _fail([one.request for one in answered], error)
            except Exception as error:
                _fail([one.request for one in answered], error)
                raise
            else:
                self._tell(answered)
            finally:
                self._confirming.discard(task)
                if not self._flying:
                    self._idle.set()

        task = self._loop.create_task(confirm())
        self._confirming.add(task)

    async def _confirmed(self, level: Durability, moment: Moment) -> None:
        if level in (Durability.DISK, Durability.REPLICA) and not self._link.fsyncs:
            on_disk(await self._link.wait_for_disk())
        if level == Durability.REPLICA:
            replicated(await self._link.wait_for_replica())
        if level == Durability.LEDGER:
            await in_ledger(self._options.ledger_gate, moment.partition, moment.epoch, moment.seq)

    def _tell(self, answered: list[Answered]) -> None:
        for request, mine in answered:
            if request.future.done():
                continue
            if None in mine:
                self._settle_partly(request, mine)
            else:
                request.future.set_result(mine[0] if request.single else mine)

    def _settle_partly(self, request: Request, outcomes: list[Outcome[Any] | None]) -> None:
        """Only what is undecided is asked again: the others' answers are first answers, not replays."""
        if request.single:
            self._ask_again(request)
            return
        left = [i for i, outcome in enumerate(outcomes) if outcome is None]

        def complete(rest: "asyncio.Future[list[Any]]") -> None:
            if request.future.done():
                return
            if error := rest.exception():
                request.future.set_exception(error)
                return
            for i, outcome in zip(left, rest.result(), strict=True):
                outcomes[i] = outcome
            request.future.set_result(outcomes)

        rest: asyncio.Future[list[Any]] = self._loop.create_future()
        rest.add_done_callback(complete)
        self._ask_again(request._replace(commands=[request.commands[i] for i in left], future=rest))

    def _ask_again(self, request: Request) -> None:
        """The script could not decide within its bound, because much was overdue; each time less is."""
        if self._loop.time() > request.given_up_at:
            _fail([request], StoreUnavailable("too much was overdue to decide in time; try again"))
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
            _fail(others, StoreUnavailable("the store is out of memory; it takes no new holds until some is freed"))
            if give_back:
                self._send(give_back, freeing=True)
        else:
            raise self._link.translate(error)

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
        _fail(unsent, StoreUnavailable("the store is away or too slow; the command was not carried out in time"))
        _fail(late, StoreUnavailable("the outcome is unknown: the store did not reply in time"))
        self._idle.set()

    def _fail_waiting(self, error: FlashHoldError) -> None:
        requests = list(self._waiting)
        self._waiting.clear()
        self.waiting_commands = 0
        _fail(requests, error)
        self._idle.set()

    async def drain(self) -> None:
        """Waits until nothing is waiting or in flight."""
        while self._flying or self._confirming or (self._waiting and self._link.ready):
            self._idle.clear()
            await self._idle.wait()


def weight_of(command: Command) -> int:
    """About as many members as the command's encoding has."""
    return 8 + 3 * len(getattr(command, "lines", None) or ())


def _fail(requests: list[Request], error: Exception) -> None:
    """To each an error of his own: every caller that raises one hangs its frames on it."""
    for request in requests:
        if not request.future.done():
            request.future.set_exception(copy.copy(error) if isinstance(error, FlashHoldError) else error)
