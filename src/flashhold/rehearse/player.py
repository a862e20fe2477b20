"""Plays a plan over HTTP: every cart is held, committed and shipped, every movement posted."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from flashhold.domain.model import Line
from flashhold.rehearse.client import Answer, Caller, Tally, together
from flashhold.rehearse.plan import Cart, Event, Movement, Plan
from flashhold.rehearse.requests import Requests

_SOLD_WAITING_MAX = 128
"""Holds that wait for their commit when the file's order is kept: seconds of work, so that none nears its deadline."""
_CALLERS_A_LANE = 4
"""Of so many connections one decides and the others fulfil: a decided cart brings some twenty shipments."""
_UNEXPECTED_KEPT_MAX = 50


class _Placed(msgspec.Struct):
    partition: str
    epoch: int
    seq: int


class _HeldLine(msgspec.Struct):
    quantity: int


class _Held(_Placed):
    id: str
    lines: list[_HeldLine]


class _Problem(msgspec.Struct):
    code: str = ""


_placed = msgspec.json.Decoder(_Placed)
_held = msgspec.json.Decoder(_Held)
_problem = msgspec.json.Decoder(_Problem)


@dataclass
class Played:
    """What the API answered. Units by what they became; places are the highest (epoch, seq) seen of each partition."""

    units: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    """Accepted commands for each kind of ledger entry."""
    refused_holds: set[tuple[int, int]] = field(default_factory=set)
    """(index of the cart's event, part)."""
    refused_movements: set[int] = field(default_factory=set)
    """Rows."""
    unexpected: list[str] = field(default_factory=list)
    unexpected_count: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    steps_done: int = 0
    """Of the plan's requests: those decided, and those that a refusal made pointless."""

    def surprise(self, what: str, answer: Answer) -> None:
        self.unexpected_count += 1
        if len(self.unexpected) < _UNEXPECTED_KEPT_MAX:
            self.unexpected.append(f"{what}: answered {answer.status} {answer.body[:200].decode(errors='replace')}")

    def see(self, placed: _Placed) -> None:
        place = (placed.epoch, placed.seq)
        if place > self.places.get(placed.partition, (0, 0)):
            self.places[placed.partition] = place


_Step = tuple[int, Event, int]
"""The event's index, the event, and which of a cart's holds (0 for a movement)."""


@dataclass(frozen=True, slots=True)
class _Sold:
    """A hold that is to be committed and shipped."""

    cart: Cart
    part: int
    hold: str

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.cart.holds[self.part]


class Player:
    """One run. `connections` requests are under way at a time; `speed_up` None plays as fast as the answers come."""

    def __init__(
        self, plan: Plan, requests: Requests, tally: Tally, *, connections: int, speed_up: float | None
    ) -> None:
        self.played = Played()
        self._plan = plan
        self._requests = requests
        self._callers = [Caller(requests.api, tally) for _ in range(connections)]
        self._speed_up = speed_up
        self._first_at_s = next((e.at_s for e in plan.events if e.at_s is not None), 0.0)
        self._began = 0.0
        self._turns: dict[str, asyncio.Future[None]] = {}
        """The last step begun for each SKU, while the file's order is kept."""
        self._unshipped: Counter[str] = Counter()
        self._all_shipped: dict[str, asyncio.Event] = {}

    async def open(self, opening: dict[str, int]) -> None:
        """Receive the opening stock, before anything is sold."""
        receipts = iter(opening.items())

        async def receive(caller: Caller) -> None:
            for sku, units in receipts:
                await self._post(caller, "receipt", units, self._requests.receipt(sku, units))

        await together(receive(caller) for caller in self._callers)

    async def play(self) -> None:
        """Play every event. Raises `ApiUnreachable`, `KeyRefused`."""
        self._began = time.monotonic()
        steps = self._steps()
        if not self._plan.ordered:
            await together(self._as_they_come(caller, steps) for caller in self._callers)
            return
        sold: asyncio.Queue[_Sold | None] = asyncio.Queue(_SOLD_WAITING_MAX)
        lanes = self._callers[: max(1, len(self._callers) // _CALLERS_A_LANE)]
        fulfilling = self._callers[len(lanes) :]

        async def decide() -> None:
            await together(self._in_file_order(caller, steps, sold) for caller in lanes)
            for _ in fulfilling:
                await sold.put(None)

        await together([decide(), *(self._fulfil(caller, sold) for caller in fulfilling)])

    def close(self) -> None:
        for caller in self._callers:
            caller.close()

    def _steps(self) -> Iterator[_Step]:
        """The events in file order, a cart's holds one by one: its parts stand for themselves, and a cart of a thousand
        lines does not keep one connection busy when all others are done."""
        for index, event in enumerate(self._plan.events):
            for part in range(len(event.holds) if isinstance(event, Cart) else 1):
                yield index, event, part

    async def _as_they_come(self, caller: Caller, steps: Iterator[_Step]) -> None:
        """Take the next step and see it through. With stock enough for everything, no order changes the result."""
        for index, event, part in steps:
            await self._until_due(event.at_s)
            if isinstance(event, Movement):
                await self._move(caller, event)
            elif sold := await self._hold(caller, event, index, part):
                await self._commit_and_ship(caller, sold)

    async def _in_file_order(self, caller: Caller, steps: Iterator[_Step], sold: "asyncio.Queue[_Sold | None]") -> None:
        """Decide what competes for stock; committing and shipping compete for nothing and are left to others.

        A step waits for all earlier ones that touch a SKU of its own, so every SKU sees the file's order, and the
        outcome is that of one step after the other. Whoever is waited for has begun, so no two wait for each other.
        """
        for index, event, part in steps:
            skus = [event.sku] if isinstance(event, Movement) else [line.sku for line in event.holds[part]]
            earlier = {turn for sku in skus if (turn := self._turns.get(sku)) is not None}
            # A step that fails never ends its turn: nothing may overtake what is to be taken up again.
            turn = asyncio.get_running_loop().create_future()
            self._turns.update(dict.fromkeys(skus, turn))
            await self._until_due(event.at_s)
            if earlier:
                await asyncio.wait(earlier)
            if isinstance(event, Movement):
                if event.kind == "damage" or event.quantity < 0:
                    await self._until_shipped(event.sku)
                await self._move(caller, event)
            elif hold := await self._hold(caller, event, index, part):
                self._unshipped.update(skus)
                await sold.put(hold)
            turn.set_result(None)

    async def _fulfil(self, caller: Caller, queue: "asyncio.Queue[_Sold | None]") -> None:
        while (sold := await queue.get()) is not None:
            await self._commit_and_ship(caller, sold)
            for line in sold.lines:
                self._unshipped[line.sku] -= 1
                if not self._unshipped[line.sku] and line.sku in self._all_shipped:
                    self._all_shipped.pop(line.sku).set()

    async def _until_shipped(self, sku: str) -> None:
        """A write-off is bounded by what is on hand, sold units included: it waits until none of those are left."""
        if self._unshipped[sku]:
            await self._all_shipped.setdefault(sku, asyncio.Event()).wait()

    async def _until_due(self, at_s: float | None) -> None:
        if self._speed_up is not None and at_s is not None:
            due = self._began + (at_s - self._first_at_s) / self._speed_up
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _hold(self, caller: Caller, cart: Cart, index: int, part: int) -> _Sold | None:
        """The hold, if it was granted and is to be sold; an abandoned cart gives it back at once."""
        lines = cart.holds[part]
        answer = await caller.call("hold", self._requests.hold(cart, part))
        self.played.steps_done += 1
        if answer.status != 201:
            self.played.steps_done += 1 if cart.abandoned else 1 + len(lines)
            self.played.refused_holds.add((index, part))
            if _code(answer) not in ("insufficient-stock", "unknown-sku"):
                self.played.surprise(f"hold of order {cart.order}, part {part + 1}", answer)
            return None
        held = _held.decode(answer.body)
        self.played.see(held)
        self.played.acknowledged["hold"] += 1
        self.played.units["held"] += sum(line.quantity for line in held.lines)
        if not cart.abandoned:
            return _Sold(cart, part, held.id)
        await self._post(
            caller, "release", sum(line.quantity for line in lines), self._requests.release(cart, part, held.id)
        )
        return None

    async def _commit_and_ship(self, caller: Caller, sold: _Sold) -> None:
        cart, part = sold.cart, sold.part
        units = sum(line.quantity for line in sold.lines)
        if not await self._post(caller, "commit", units, self._requests.commit(cart, part, sold.hold)):
            self.played.steps_done += len(sold.lines)
            return
        for number, line in enumerate(sold.lines):
            await self._post(caller, "shipment", line.quantity, self._requests.shipment(cart, part, number, line))

    async def _move(self, caller: Caller, movement: Movement) -> None:
        request = self._requests.movement(movement)
        await self._post(caller, movement.kind, movement.quantity, request, movement.row)

    async def _post(self, caller: Caller, kind: str, units: int, request: bytes, row: int | None = None) -> bool:
        """Post what should be accepted; only a movement of the file's own (`row`) may be refused."""
        answer = await caller.call(kind, request)
        played = self.played
        played.steps_done += 1
        if answer.status in (200, 201):
            played.see(_placed.decode(answer.body))
            played.acknowledged[kind] += 1
            played.units[_BECAME.get(kind) or ("adjusted_up" if units > 0 else "adjusted_down")] += abs(units)
            return True
        if row is not None and _code(answer) in ("movement-refused", "unknown-sku"):
            played.refused_movements.add(row)
        else:
            played.surprise(f"{kind} of {units} units" + (f", row {row}" if row is not None else ""), answer)
        return False


_BECAME = {
    "receipt": "received",
    "commit": "committed",
    "release": "released",
    "shipment": "shipped",
    "return": "returned",
    "damage": "damaged",
}


def _code(answer: Answer) -> str:
    """The problem's code, or nothing where the answer is no problem document."""
    try:
        return _problem.decode(answer.body).code
    except msgspec.DecodeError:
        return ""
