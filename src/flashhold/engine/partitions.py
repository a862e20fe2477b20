"""Several partitions behind an engine's interface: each command goes to the one partition that decides it.

Nothing is decided here, and nothing fans out: a partition has its own engine with a connection of its own, so one that
is away keeps only its own SKUs waiting. What is remembered here of where a SKU lives is a guess to begin with: every
partition answers truthfully for itself, and one that a SKU has left says where it went (engine/moving.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, assert_never

from flashhold.domain import commands, model
from flashhold.domain.commands import Command
from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.idempotency import is_cart, is_part, parse_hold_id
from flashhold.domain.model import DEFAULT_POOL, Line
from flashhold.domain.outcomes import Outcome, Refused
from flashhold.domain.places import place_of
from flashhold.domain.reasons import Reason
from flashhold.engine.carts import PATIENCE_S, Carts
from flashhold.engine.engine import Engine
from flashhold.engine.moving import Moving

PLACES_KEPT_MAX = 100_000
"""SKUs whose partition is remembered: about 15 MB."""

OfOneHold = commands.Commit | commands.Release | commands.Extend | commands.Amend | commands.ReadHold


class Partitions:
    """The engines of a deployment by partition. Looking one up may raise what keeps it from deciding."""

    def __init__(self, engines: Mapping[str, Engine], *, patience_s: float = PATIENCE_S) -> None:
        self._engines = engines
        self._names = tuple(sorted(engines))
        self._places: dict[str, str] = {}
        self._carts = Carts(engines, patience_s=patience_s)
        self._moving = Moving(engines)
        self._running: set[asyncio.Task[Any]] = set()

    def submit(self, command: Command) -> "asyncio.Future[Any]":
        """The future of the command's outcome, as `Engine.submit`. Raises `Overloaded`, `StoreUnavailable`,
        `Recovering`."""
        match command:
            case commands.Hold() | commands.Move() | commands.ReadStock():
                return self._followed(command, self._sent(command))
            case commands.SetPolicy():
                return self._run(self._set_policy(command))
            case commands.Amend():
                return self._run(self._amend(command))
            case commands.Commit() | commands.Release() | commands.Extend() | commands.ReadHold():
                return self._sent_to_hold(command)
            case commands.HoldPart() | commands.CountBuyers() | commands.Sweep():
                raise ValueError("this is said to one partition: ask its own engine")
            case _:
                assert_never(command)

    async def drain(self) -> None:
        """Waits for what takes several steps and has begun."""
        while self._running:
            await asyncio.wait(self._running)
        await self._carts.drain()

    async def read_hold(self, hold: str) -> Outcome[model.Hold]:
        """The hold as it stands now."""
        outcome: Outcome[model.Hold] = await self.submit(commands.ReadHold(hold))
        return outcome

    async def read_stock(self, sku: str, pool: str = DEFAULT_POOL) -> Outcome[model.Stock]:
        """The pool as it stands now, with nothing overdue counted as held."""
        outcome: Outcome[model.Stock] = await self.submit(commands.ReadStock(sku, pool))
        return outcome

    async def sellable(self, skus: Sequence[str]) -> dict[str, dict[str, int]]:
        """As `Engine.sellable`, each partition asked for its own SKUs."""
        found: dict[str, dict[str, int]] = {}
        left: Sequence[str] = skus
        for _ in range(len(self._names) + 1):
            by_place: dict[str, list[str]] = {}
            for sku in left:
                by_place.setdefault(self._place_of(sku), []).append(sku)
            elsewhere: dict[str, str] = {}
            asked = [self._engines[place].sellable(some, elsewhere) for place, some in by_place.items()]
            for one in await asyncio.gather(*asked):
                found |= one
            for sku, place in elsewhere.items():
                self._note(sku, place)
            left = list(elsewhere)
            if not left:
                return found
        raise StoreUnavailable(_BEING_MOVED)

    def _sent(self, command: commands.Hold | commands.Move | commands.ReadStock) -> "asyncio.Future[Any]":
        """To where its SKUs are thought to be."""
        if isinstance(command, commands.Hold):
            if len(command.lines) == 1:
                sku = command.lines[0].sku
                return self._engines[self._places.get(sku) or self._place_of(sku)].submit(command)
            groups = self._groups(command.lines)
            if len(groups) > 1:
                return self._carts.submit(command, groups)
            return self._engines[next(iter(groups))].submit(command)
        place = self._place_of(command.sku)
        if isinstance(command, commands.Move) and command.hold is not None and is_cart(command.hold):
            return self._carts.submit(command, {place: ()})
        return self._engines[place].submit(command)

    def _sent_to_hold(self, command: OfOneHold) -> "asyncio.Future[Any]":
        if is_cart(command.hold) or (is_part(command.hold) and isinstance(command, commands.ReadHold)):
            return self._carts.submit(command)
        if is_part(command.hold):
            command = command._replace(hold="")  # only its cart may end it: for everybody else it is unknown
        return self._engines[self._place_of_hold(command.hold)].submit(command)

    def _followed(
        self, command: commands.Hold | commands.Move | commands.ReadStock, sent: "asyncio.Future[Any]"
    ) -> "asyncio.Future[Any]":
        """Its outcome, or that of sending it on to where its SKU has gone. A callback: few are ever sent on."""
        outer: asyncio.Future[Any] = sent.get_loop().create_future()
        sent.add_done_callback(partial(self._told, command, outer))
        return outer

    def _told(
        self,
        command: commands.Hold | commands.Move | commands.ReadStock,
        outer: "asyncio.Future[Any]",
        sent: "asyncio.Future[Any]",
    ) -> None:
        if outer.done():
            return
        if sent.cancelled():
            outer.cancel()
        elif error := sent.exception():
            outer.set_exception(error)
        elif _is_elsewhere(outcome := sent.result()):
            more = self._run(self._send_on(command, outcome))
            more.add_done_callback(partial(self._told, command, outer))
        else:
            outer.set_result(outcome)

    async def _send_on(
        self, command: commands.Hold | commands.Move | commands.ReadStock, outcome: Refused
    ) -> Outcome[Any]:
        for _ in range(2 * len(self._names)):
            self._note(outcome.detail["sku"], outcome.detail["partition"])
            outcome = await self._sent(command)
            if not _is_elsewhere(outcome):
                return outcome
        raise StoreUnavailable(_BEING_MOVED)

    async def _set_policy(self, command: commands.SetPolicy) -> Outcome[model.Policy]:
        place, outcome = await self._moving.set_policy(command, self._place_of(command.sku))
        self._note(command.sku, place)
        return outcome

    async def _amend(self, command: commands.Amend) -> Outcome[model.Hold]:
        """An amended hold stays in its partition, so that is where its SKUs have to be."""
        if is_cart(command.hold) or is_part(command.hold):
            outcome: Outcome[model.Hold] = await self._sent_to_hold(command)
            return outcome
        place = self._place_of_hold(command.hold)
        known: Outcome[model.Hold] = await self._engines[place].submit(command)
        elsewhere = [line.sku for line in command.lines if self._place_of(line.sku) != place]
        if elsewhere and isinstance(known, Refused) and known.reason in (Reason.UNKNOWN_SKU, Reason.SKU_ELSEWHERE):
            message = "these SKUs do not share a partition; give them one `partition_key` to hold them together"
            detail = {"errors": [{"field": "lines", "message": message}]}
            return Refused(Reason.INVALID_REQUEST, detail, False, place, known.epoch, known.seq)
        return known

    def _run(self, steps: Any) -> "asyncio.Future[Any]":
        """What takes several steps is finished also when its caller goes away."""
        task = asyncio.get_running_loop().create_task(steps)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return asyncio.shield(task)

    def _groups(self, lines: Sequence[Line]) -> dict[str, list[Line]]:
        """The lines by partition."""
        groups: dict[str, list[Line]] = {}
        for line in lines:
            groups.setdefault(self._place_of(line.sku), []).append(line)
        return groups

    def _place_of_hold(self, hold: str) -> str:
        """A text that can be no hold's id is asked for in the first partition, which knows no such hold either."""
        parsed = parse_hold_id(hold)
        return parsed[0] if parsed is not None and parsed[0] in self._engines else self._names[0]

    def _place_of(self, sku: str) -> str:
        place = self._places.get(sku)
        if place is None:
            place = place_of(sku, self._names)
            self._note(sku, place)
        return place

    def _note(self, sku: str, place: str) -> None:
        if len(self._places) >= PLACES_KEPT_MAX:
            self._places.clear()
        self._places[sku] = place or place_of(sku, self._names)


_BEING_MOVED = "the SKU is being moved to another partition; nothing was carried out"


def _is_elsewhere(outcome: Outcome[Any]) -> bool:
    return type(outcome) is Refused and outcome.reason is Reason.SKU_ELSEWHERE
