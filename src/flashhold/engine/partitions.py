"""Several partitions behind an engine's interface: each command goes to the one partition that decides it.

Nothing is decided here, and nothing fans out: a partition has its own engine with a connection of its own, so one that
is away keeps only its own SKUs waiting.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from flashhold.domain import commands, model
from flashhold.domain.commands import Command
from flashhold.domain.idempotency import parse_hold_id
from flashhold.domain.model import DEFAULT_POOL, Line
from flashhold.domain.outcomes import Outcome, Refused
from flashhold.domain.places import place_of
from flashhold.domain.reasons import Reason
from flashhold.engine.engine import Engine

PLACES_KEPT_MAX = 100_000
"""SKUs whose partition is remembered: about 15 MB."""


class Partitions:
    """The engines of a deployment by partition. Looking one up may raise what keeps it from deciding."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._names = tuple(sorted(engines))
        self._places: dict[str, str] = {}

    def submit(self, command: Command) -> "asyncio.Future[Any]":
        """The future of the command's outcome, as `Engine.submit`. Raises `Overloaded`, `StoreUnavailable`,
        `Recovering`."""
        kind = type(command)
        if kind is commands.Hold or kind is commands.Amend:
            return self._submit_cart(command)  # type: ignore[arg-type]  # one of the two, by the line above
        return self._engines[self._partition_of(command)].submit(command)

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
        by_place: dict[str, list[str]] = {}
        for sku in skus:
            by_place.setdefault(self._place_of(sku), []).append(sku)
        found = await asyncio.gather(*[self._engines[place].sellable(some) for place, some in by_place.items()])
        return {sku: pools for one in found for sku, pools in one.items()}

    def _submit_cart(self, command: commands.Hold | commands.Amend) -> "asyncio.Future[Any]":
        groups = self._groups(command.lines)
        if isinstance(command, commands.Amend):
            place = self._place_of_hold(command.hold)
            if groups.keys() != {place}:
                return _settled(self._refusal(place))
        elif len(groups) == 1:
            place = next(iter(groups))
        else:
            return _settled(self._refusal(min(groups)))
        return self._engines[place].submit(command)

    def _groups(self, lines: Sequence[Line]) -> dict[str, list[Line]]:
        """The lines by partition."""
        groups: dict[str, list[Line]] = {}
        for line in lines:
            groups.setdefault(self._place_of(line.sku), []).append(line)
        return groups

    def _refusal(self, place: str) -> Refused:
        message = "these SKUs do not share a partition; give them one `partition_key` to hold them together"
        return Refused(Reason.INVALID_REQUEST, {"errors": [{"field": "lines", "message": message}]}, False, place, 0, 0)

    def _partition_of(self, command: Command) -> str:
        match command:
            case commands.Move() | commands.SetPolicy() | commands.CountBuyers() | commands.ReadStock():
                return self._place_of(command.sku)
            case commands.Commit() | commands.Release() | commands.Extend() | commands.Amend() | commands.ReadHold():
                return self._place_of_hold(command.hold)
            case commands.Hold(lines=lines):
                return self._place_of(lines[0].sku)
            case commands.Sweep():
                raise ValueError("a sweep is of one partition: ask its own engine")
            case _:
                assert_never(command)

    def _place_of_hold(self, hold: str) -> str:
        """A text that can be no hold's id is asked for in the first partition, which knows no such hold either."""
        parsed = parse_hold_id(hold)
        return parsed[0] if parsed is not None and parsed[0] in self._engines else self._names[0]

    def _place_of(self, sku: str) -> str:
        place = self._places.get(sku)
        if place is None:
            if len(self._places) >= PLACES_KEPT_MAX:
                self._places.clear()
            place = self._places[sku] = place_of(sku, self._names)
        return place


def _settled(outcome: Refused) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(outcome)
    return future
