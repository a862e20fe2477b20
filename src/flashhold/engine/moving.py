"""Where a SKU lives, and how its `partition_key` moves it.

By itself a SKU lives in the partition that its name falls to, its home; with a `partition_key` in the one that the key
falls to. Each partition that it has left keeps a record that says where it went, so from home on it is found whoever
asks. It moves in three steps, in an order in which there is never a second place that takes commands for it:

1. Where it lives it is closed, if nothing is on hand, held or committed there. That is one atomic decision; the record
   keeps the whole policy, counts the move, and names the new place.
2. At the new place the policy is set and the SKU opened, unless it has moved on meanwhile: the count tells.
3. The command itself is carried out there, so that its key is remembered where it will be looked for.

A process that dies in between leaves a SKU that has no stock and no holds and answers `unknown-sku`, or nothing at all
in time; the same command, repeated, walks the same way and completes it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flashhold.domain.commands import SetPolicy
from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.model import Policy
from flashhold.domain.outcomes import Applied, Outcome, Refused
from flashhold.domain.places import place_of
from flashhold.domain.reasons import Reason
from flashhold.engine.engine import Engine

TRIES = 3
"""Against others who move the same SKU at the same time."""

Placed = tuple[str, Outcome[Policy]]
"""The partition that decided, and the outcome."""


class Left(NamedTuple):
    """What closing the former place came to: the policy that the SKU had there with the command's fields, and how often
    it has moved; or the refusal, where it has to stay."""

    policy: Policy | None
    moves: int
    refusal: Refused | None = None


class Moving:
    """Sets policies, where the SKU is or where its key wants it to be."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._names = tuple(sorted(engines))

    async def set_policy(self, command: SetPolicy, guess: str) -> Placed:
        """`guess`: where the SKU is thought to be. Raises what `Engine.submit` raises, and then its fate is unknown."""
        wanted = self._wanted(command)
        if wanted is None:
            return await self._where_it_is(command, guess)
        home = place_of(command.sku, self._names)
        for _ in range(TRIES):
            outcome = await self._submit(wanted, command._replace(aim="here"))
            there = _elsewhere(outcome)
            if there is None:
                return wanted, outcome
            if wanted == home and not there.detail["partition"]:
                outcome = await self._submit(home, command)  # nobody knows it yet, and this is where it begins
            else:
                outcome = await self._move(command, home, wanted, there)
            if _elsewhere(outcome) is None:
                return wanted, outcome
        raise StoreUnavailable("the SKU is being moved to another partition by someone else")

    def _wanted(self, command: SetPolicy) -> str | None:
        """Where the SKU has to be after the command; None: where it is."""
        key = command.fields.get("partition_key")
        if key is not None:
            return place_of(key, self._names)
        return place_of(command.sku, self._names) if command.replace else None

    async def _where_it_is(self, command: SetPolicy, place: str) -> Placed:
        for _ in range(2 * len(self._names)):
            outcome = await self._submit(place, command)
            there = _elsewhere(outcome)
            if there is None:
                return place, outcome
            place = there.detail["partition"]
        raise StoreUnavailable("the SKU is being moved to another partition; its move has to be repeated")

    async def _move(self, command: SetPolicy, home: str, wanted: str, there: Refused) -> Outcome[Policy]:
        left = await self._leave(command, home, wanted, there)
        if left.refusal is not None:
            return left.refusal
        settle = command._replace(aim="settle", moves=left.moves)
        if command.replace or left.policy is None or left.policy.created:
            return await self._submit(wanted, settle)
        whole = settle._replace(fields=_fields_of(left.policy), replace=True, key=None)
        outcome = await self._submit(wanted, whole)
        if isinstance(outcome, Applied):
            outcome = await self._submit(wanted, command._replace(aim="here"))
        return outcome

    async def _leave(self, command: SetPolicy, home: str, wanted: str, there: Refused) -> Left:
        """Follows the SKU to where it lives, and closes that: from the wanted place on, where it has lived there before
        (`there`: what that said), else from its home."""
        place, moves = there.detail["partition"] or home, there.detail["moves"]
        for _ in range(len(self._names) + 1):
            outcome = await self._submit(place, command._replace(aim=wanted, moves=moves))
            if isinstance(outcome, Applied):
                return Left(outcome.value, outcome.value.moves)
            if outcome.reason != Reason.SKU_ELSEWHERE:
                return Left(None, moves, outcome)
            place, moves = outcome.detail["partition"], max(moves, outcome.detail["moves"])
        raise StoreUnavailable("the SKU is being moved to another partition by someone else")

    async def _submit(self, place: str, command: SetPolicy) -> Outcome[Policy]:
        outcome: Outcome[Policy] = await self._engines[place].submit(command)
        return outcome


def _fields_of(policy: Policy) -> dict[str, Any]:
    """The fields of a command that sets this policy."""
    return {
        "class": policy.sku_class,
        "hold_ttl_ms": policy.hold_ttl_ms,
        "hold_ttl_max_ms": policy.hold_ttl_max_ms,
        "max_per_buyer": policy.max_per_buyer,
        "opens_at_ms": policy.opens_at_ms,
        "closes_at_ms": policy.closes_at_ms,
        "partition_key": policy.partition_key,
        "durability": policy.durability,
        "pools": {name: pool._asdict() for name, pool in policy.pools.items()},
    }


def _elsewhere(outcome: Outcome[Policy]) -> Refused | None:
    return outcome if isinstance(outcome, Refused) and outcome.reason == Reason.SKU_ELSEWHERE else None
