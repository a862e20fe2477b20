"""Carts over several partitions: a saga over one hold a partition (docs/adr/0010-carts-over-partitions.md).

No step undoes what another has decided, and each may be repeated: so any number of processes may run the same cart, and
one that dies is followed by its client, who repeats the key, or by the worker (services/carts.py).
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flashhold.domain import carts, commands
from flashhold.domain.carts import Cart, Part
from flashhold.domain.entries import Entry
from flashhold.domain.errors import FlashHoldError, Overloaded, StoreUnavailable
from flashhold.domain.idempotency import is_part, parse_hold_id
from flashhold.domain.model import Hold, HoldState, Line
from flashhold.domain.outcomes import Applied, Outcome, Refused
from flashhold.domain.reasons import Reason
from flashhold.engine.carts_look import Refusal, look
from flashhold.engine.durability import Durability
from flashhold.engine.engine import Engine

CartCommand = (
    commands.Hold
    | commands.Commit
    | commands.Release
    | commands.Extend
    | commands.Amend
    | commands.ReadHold
    | commands.Move
)

_FINAL = {
    HoldState.COMMITTED: Reason.ALREADY_COMMITTED,
    HoldState.RELEASED: Reason.HOLD_RELEASED,
    HoldState.EXPIRED: Reason.HOLD_EXPIRED,
}


PATIENCE_S = 2.0
"""How long a caller waits for a cart: each of its steps may take as long as a batch may, and he is not to wait for all
of them where a store has become slow."""


class Carts:
    """The verbs of carts whose SKUs are in several partitions. Looking an engine up may raise what keeps its partition
    from deciding. Every verb may raise what an `Engine`'s may, and then its fate is unknown: repeat it with its key."""

    def __init__(self, engines: Mapping[str, Engine], *, patience_s: float = PATIENCE_S) -> None:
        self._engines = engines
        self._patience_s = patience_s
        self._running: set[asyncio.Task[Any]] = set()

    def submit(self, command: CartCommand, groups: Mapping[str, Sequence[Line]] | None = None) -> "asyncio.Future[Any]":
        """The future of the command's outcome; a caller who goes away, or is told that there is no answer in time, does
        not stop it. `groups`: of a hold, its lines by partition, each with at least one; of a movement, {the partition
        of its SKU: ()}."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(command, groups or {}))
        self._running.add(task)
        told: asyncio.Future[Any] = loop.create_future()
        late = loop.call_later(self._patience_s, _tell_late, told)

        def tell(done: "asyncio.Task[Any]") -> None:
            late.cancel()
            self._running.discard(done)
            error = None if done.cancelled() else done.exception()
            if told.done():
                return
            if done.cancelled() or error is not None:
                told.set_exception(error or StoreUnavailable("the outcome is unknown: this process ends"))
            else:
                told.set_result(done.result())

        task.add_done_callback(tell)
        return told

    async def drain(self) -> None:
        """Waits for the carts that are under way."""
        while self._running:
            await asyncio.wait(self._running)

    def _run(
        self, command: CartCommand, groups: Mapping[str, Sequence[Line]]
    ) -> Coroutine[Any, Any, Outcome[Hold] | Outcome[Entry]]:
        match command:
            case commands.Hold():
                return self.hold(command, groups)
            case commands.Move():
                return self.move(command, next(iter(groups)))
            case commands.ReadHold(hold):
                return self.read_hold(hold)
            case commands.Commit():
                return self.commit(command)
            case commands.Release():
                return self.release(command)
            case commands.Extend():
                return self.extend(command)
            case commands.Amend():
                return self.amend(command)

    async def hold(self, command: commands.Hold, groups: Mapping[str, Sequence[Line]]) -> Outcome[Hold]:
        """All lines of all partitions or none."""
        first = min(groups)
        if command.allow_partial:
            return _invalid(first, "allow_partial", "not offered where the SKUs do not share a partition")
        refusal, ttl_ms, durability = await look(self._engines, command, groups)
        cart = carts.divided(command.lines, groups, command.metadata, durability)
        outcome: Outcome[Hold] = await self._engines[first].submit(
            commands.HoldPart(
                command.key, carts.first_digest(command.key), _meaning(command), tuple(groups[first]), cart.text(),
                command.buyer, ttl_ms, refusal=refusal,
            )
        )  # fmt: skip
        if isinstance(outcome, Refused):
            return outcome
        with _under_way():
            return await self._complete(outcome.value, outcome.replayed)

    async def commit(self, command: commands.Commit) -> Outcome[Hold]:
        """As the cart's first hold decides. An expired cart is not taken again: its units may be gone in any of its
        partitions."""
        engine = self._engine_of(command.hold)
        outcome = await engine.read_hold(command.hold)
        cart = None if isinstance(outcome, Refused) else carts.cart_of(outcome.value)
        if isinstance(outcome, Refused) or cart is None:
            return await self._unknown(command)
        present = outcome.value
        takes = cart.takes(command.lines)
        if takes is None:
            if present.state == HoldState.HELD:
                return _invalid(present.partition, "lines", "more than the hold has")
            return _refused(_FINAL[present.state], present, False)
        some = None if takes == cart.takes(None) else takes
        if present.state == HoldState.HELD:
            await self._make_sure(present, cart)
        own = None if some is None else _some(cart, carts.first_lines(present.id, cart), takes)
        reference = carts.commit_text(command.reference, some)
        decided: Outcome[Hold] = await engine.submit(commands.Commit(present.id, reference, own, False, command.key))
        if not isinstance(decided, Refused):
            present = decided.value
        elif decided.reason in (Reason.HOLD_EXPIRED, Reason.HOLD_RELEASED):
            present = present._replace(state=HoldState.RELEASED)  # as far as its parts are concerned
        else:
            return decided
        with _under_way():
            await self._raised(present, cart)
        await self._follow_now(present)
        return _shown(decided)

    async def release(self, command: commands.Release) -> Outcome[Hold]:
        """The first hold, then the others."""
        outcome: Outcome[Hold] = await self._submit(command)
        if not isinstance(outcome, Refused):
            with _under_way():
                await self._raised(outcome.value, carts.cart_of(outcome.value))
            await self._follow_now(outcome.value)
        return _shown(outcome)

    async def extend(self, command: commands.Extend) -> Outcome[Hold]:
        """Of the first hold alone, whose deadline is that of all; its SKUs' policies bound it."""
        outcome: Outcome[Hold] = await self._submit(command)
        if not isinstance(outcome, Refused):
            with _under_way():
                await self._raised(outcome.value, carts.cart_of(outcome.value))
        return _shown(outcome)

    async def amend(self, command: commands.Amend) -> Outcome[Hold]:
        """Refused: a step by which some partitions have changed and others not could be undone by nobody."""
        return _invalid(
            self._engine_of(command.hold).partition, "lines",
            "a hold over several partitions cannot be amended; release it and hold anew",
        )  # fmt: skip

    async def read_hold(self, hold: str) -> Outcome[Hold]:
        """The cart as it stands now, also by the id of a part."""
        if is_part(hold):
            outcome = await self._engine_of(hold).read_hold(hold)
            if isinstance(outcome, Refused):
                return outcome
            hold = carts.first_of(outcome.value)
        return _shown(await self._engine_of(hold).read_hold(hold))

    async def move(self, command: commands.Move, partition: str) -> Outcome[Entry]:
        """A movement that names a cart names the hold that it has in the movement's own partition."""
        assert command.hold is not None, "or it is not about a cart"
        named = command.hold
        outcome = await self._engine_of(named).read_hold(named)
        if not isinstance(outcome, Refused):
            cart = carts.cart_of(outcome.value)
            parts = carts.parts_of(named, cart) if cart else []
            named = next((part.id for part in parts if part.partition == partition), named)
            found = await self._engines[partition].read_hold(named)
            named = named if isinstance(found, Refused) else found.value.id
        moved: Outcome[Entry] = await self._engines[partition].submit(command._replace(hold=named))
        return moved if isinstance(moved, Refused) else moved._replace(value=moved.value._replace(hold=command.hold))

    async def follow(self, first: Hold) -> list[tuple[Part, Refused]]:
        """Ends the parts as the cart's first hold has ended. Returns those parts of a sold cart that could not be sold,
        which no fault that the durability level survives can bring about."""
        cart = carts.cart_of(first)
        if cart is None or first.state == HoldState.HELD:
            return []
        parts = carts.parts_of(first.id, cart)
        if first.state != HoldState.COMMITTED:
            reason = "hold-expired" if first.state == HoldState.EXPIRED else carts.shown(first).reason
            await _all(self._submit(commands.Release(part.id, reason)) for part in parts)
            return []
        takes = carts.takes_of(first, cart)
        whole = takes == cart.takes(None)
        reference = carts.commit_of(first.reference)[0]
        outcomes = await _all(
            self._submit(commands.Commit(part.id, reference, None if whole else _some(cart, part.at, takes)))
            for part in parts
        )
        return [(part, one) for part, one in zip(parts, outcomes, strict=True) if isinstance(one, Refused)]

    async def _complete(self, made: Hold, replayed: bool) -> Outcome[Hold]:
        """Carries a cart on whose first hold was made now, or at an earlier try: then it is looked at first."""
        cart = carts.cart_of(made)
        assert cart is not None, "a first hold keeps its cart"
        present = await self._present(made.id) if replayed else made
        complete = False
        if present is not None and present.state == HoldState.HELD:
            refusal = await self._hold_parts(made, carts.parts_of(made.id, cart))
            complete = refusal is None
            if refusal is not None:
                await self._undo(made, cart, refusal)
            # It may have ended meanwhile, by its deadline or by another who runs it: the parts are then for nobody.
            present = await self._present(made.id)
        if present is None or present.state == HoldState.COMMITTED or (present.state == HoldState.HELD and complete):
            if present is not None:
                await self._raised(present, cart)
            return Applied(carts.shown(made), replayed)
        return await self._ended(made, present, cart, replayed)

    async def _ended(self, made: Hold, present: Hold, cart: Cart, replayed: bool) -> Outcome[Hold]:
        """What the key of a cart is answered that has ended unsold: always the same."""
        if present.state == HoldState.HELD:
            raise StoreUnavailable("the cart is being undone; repeat it with the same key")
        known = carts.refusal_of(present)
        if known is None:
            # Its key was answered with a hold if all parts were made. Which of them were not is now settled for good.
            refusal: Refusal = (_FINAL[present.state].value, {})
            parts = carts.parts_of(made.id, cart)
            outcomes = await _all(self._hold_part(made, part, refusal) for part in parts)
            if any(isinstance(outcome, Refused) for outcome in outcomes):
                known = _FINAL[present.state], {}
        await self._follow_now(present)
        if known is None:
            return Applied(carts.shown(made), replayed)
        return Refused(*known, replayed, present.partition, present.epoch, present.seq)

    async def _hold_parts(self, first: Hold, parts: Iterable[Part]) -> Refused | None:
        """One after the other: of two carts that want the same last units, one gets them all, and not each a half."""
        for part in parts:
            outcome = await self._hold_part(first, part)
            if isinstance(outcome, Refused):
                return outcome
        return None

    async def _hold_part(self, first: Hold, part: Part, refusal: Refusal | None = None) -> Outcome[Hold]:
        outcome: Outcome[Hold] = await self._engines[part.partition].submit(
            commands.HoldPart(
                part.key, part.digest, part.key, part.lines, carts.part_text(first.id), first.buyer, None, True, refusal
            )
        )
        return outcome

    async def _make_sure(self, first: Hold, cart: Cart) -> None:
        """Before a sale is decided all parts must be held; a cart that cannot be completed is undone."""
        parts = carts.parts_of(first.id, cart)
        found = await _all(self._engine_of(part.id).read_hold(part.id) for part in parts)
        missing = [part for part, outcome in zip(parts, found, strict=True) if isinstance(outcome, Refused)]
        with _under_way():
            refusal = await self._hold_parts(first, missing)
            for outcome in found:
                if isinstance(outcome, Applied) and outcome.value.state not in (HoldState.HELD, HoldState.COMMITTED):
                    # The first hold's own end was lost with its store: what followed it has not come back.
                    refusal = _refused(Reason.HOLD_RELEASED, outcome.value, False)
            if refusal is not None:
                await self._undo(first, cart, refusal)

    async def _undo(self, first: Hold, cart: Cart, refusal: Refused) -> None:
        """Releases the first hold, which from then on keeps the refusal, unless it has ended before."""
        reason, detail = refusal.reason, refusal.detail
        if reason == Reason.SKU_ELSEWHERE:
            # It has moved since it was looked at, as only a SKU without units can: so it was short, for good.
            gone = [line for _, line in cart.lines if line.sku == detail["sku"]]
            lines = [{"sku": sku, "pool": pool, "requested": units, "sellable": 0} for sku, units, pool in gone]
            reason, detail = Reason.INSUFFICIENT_STOCK, {"lines": lines}
        await self._submit(commands.Release(first.id, carts.refusal_text(reason, detail)))

    async def _raised(self, first: Hold, cart: Cart | None) -> None:
        """Waits until what was decided of the first hold is as durable as the policy of any of the cart's SKUs asks:
        before it is told, and before any part follows. Raises NotDurable."""
        engine = self._engine_of(first.id)
        if cart is None or not cart.durability or Durability(cart.durability).rank <= engine.durability.rank:
            return
        # Asked once more, so that the wait is for a write of the connection that is used now.
        again = await engine.read_hold(first.id)
        if isinstance(again, Refused) or (again.value.epoch, again.value.seq) < (first.epoch, first.seq):
            raise StoreUnavailable("the outcome is unknown: the store has lost it")
        await engine.confirm(Durability(cart.durability), again.value.epoch, again.value.seq)

    async def _follow_now(self, first: Hold) -> None:
        """What is decided is decided: a part whose store is away is left to the worker."""
        with contextlib.suppress(FlashHoldError):
            await self.follow(first)

    async def _present(self, hold: str) -> Hold | None:
        outcome = await self._engine_of(hold).read_hold(hold)
        return None if isinstance(outcome, Refused) else outcome.value

    async def _submit(self, command: commands.Commit | commands.Release | commands.Extend) -> Outcome[Hold]:
        outcome: Outcome[Hold] = await self._engine_of(command.hold).submit(command)
        return outcome

    async def _unknown(self, command: commands.Commit) -> Outcome[Hold]:
        """The refusal of a hold that nobody has made, for its key to remember."""
        outcome: Outcome[Hold] = await self._engine_of(command.hold).submit(command._replace(hold="", lines=None))
        return outcome

    def _engine_of(self, hold: str) -> Engine:
        """A text that can be no hold's id is asked for in the first partition, which knows no such hold either."""
        parsed = parse_hold_id(hold)
        return self._engines[parsed[0] if parsed is not None and parsed[0] in self._engines else min(self._engines)]


def _tell_late(told: "asyncio.Future[Any]") -> None:
    if not told.done():
        told.set_exception(StoreUnavailable("the outcome is unknown: the cart's partitions did not answer in time"))


def _meaning(command: commands.Hold) -> str:
    """What the client's key stands for: neither the deadline nor the division into parts is its wish."""
    _, lines, buyer, ttl_ms, _, metadata = command
    return msgspec.json.encode((lines, buyer, ttl_ms, metadata)).decode()


def _some(cart: Cart, places: Sequence[int], takes: Sequence[int]) -> tuple[Line, ...]:
    """The lines at these places with what is taken of each, which may be nothing."""
    return tuple(cart.lines[i][1]._replace(quantity=takes[i]) for i in places)


def _shown(outcome: Outcome[Hold]) -> Outcome[Hold]:
    return outcome if isinstance(outcome, Refused) else outcome._replace(value=carts.shown(outcome.value))


def _refused(reason: Reason, hold: Hold, replayed: bool) -> Refused:
    return Refused(reason, {}, replayed, hold.partition, hold.epoch, hold.seq)


def _invalid(partition: str, field: str, message: str) -> Refused:
    return Refused(
        Reason.INVALID_REQUEST, {"errors": [{"field": field, "message": message}]}, False, partition, 0, 0
    )  # fmt: skip


async def _all(steps: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The outcomes of all; each has run to its end before the first accident is raised."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


@contextlib.contextmanager
def _under_way() -> Iterator[None]:
    """A cart that has begun is no longer `not sent`, though a part of it is."""
    try:
        yield
    except Overloaded as error:
        raise StoreUnavailable("the outcome is unknown: a partition has too much to do") from error
