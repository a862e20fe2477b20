"""A look at all SKUs of a cart over several partitions, before any of it is held.

So what a request has wrong is told before its key stands for a hold, a refusal names every short line, and the deadline
suits every policy. It decides nothing: units that it has seen may be gone when they are wanted.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flashhold.domain import commands
from flashhold.domain.model import Line, Stock
from flashhold.domain.outcomes import Refused
from flashhold.domain.reasons import Reason
from flashhold.engine.durability import Durability
from flashhold.engine.engine import Engine

Refusal = tuple[str, dict[str, Any]]
"""Reason and detail as the scripts have them: they make the refusal, if the key is new to them."""
_Name = tuple[str, str]


class Seen(NamedTuple):
    """What the SKUs say to the cart: a refusal, or the time that it will live (ms). `durability`: the highest that one
    of their policies asks for, '' where none does."""

    refusal: Refusal | None
    ttl_ms: int | None = None
    durability: str = ""


async def look(engines: Mapping[str, Engine], command: commands.Hold, groups: Mapping[str, Sequence[Line]]) -> Seen:
    """All SKUs, partition by partition at once."""
    engine = engines[min(groups)]
    stocks = await _stocks(engines, groups)
    for line in command.lines:
        stock = stocks[line.sku, line.pool]
        if isinstance(stock, Refused):
            return Seen((stock.reason.value, stock.detail))
        policy = stock.policy
        if (policy.opens_at_ms or 0) > stock.as_of_ms:
            return Seen(("sale-not-open", {"sku": line.sku, "opens_at_ms": policy.opens_at_ms}))
        if policy.closes_at_ms and policy.closes_at_ms <= stock.as_of_ms:
            return Seen(("sale-closed", {"sku": line.sku, "closes_at_ms": policy.closes_at_ms}))
    known = {name: stock for name, stock in stocks.items() if not isinstance(stock, Refused)}
    policies = [stock.policy for stock in known.values()]
    usual_ms, most_ms = engine.ttls_ms
    most_ms = min(policy.hold_ttl_max_ms or most_ms for policy in policies)
    usual_ms = min(most_ms, *(policy.hold_ttl_ms or usual_ms for policy in policies))
    if command.ttl_ms is not None and command.ttl_ms > most_ms:
        return Seen(_invalid("ttl_seconds", f"at most {most_ms // 1000}, the longest that the policy allows"))
    if command.buyer is None and any(policy.max_per_buyer for policy in policies):
        return Seen(_invalid("buyer", "required, because a SKU has a limit per buyer"))
    levels = [Durability(policy.durability) for policy in policies if policy.durability]
    highest = max(levels, key=lambda level: level.rank, default="")
    return Seen(_shortage(command, known), command.ttl_ms or usual_ms, str(highest))


async def _stocks(engines: Mapping[str, Engine], groups: Mapping[str, Sequence[Line]]) -> dict[_Name, Stock | Refused]:
    names = {partition: list({(line.sku, line.pool): None for line in lines}) for partition, lines in groups.items()}
    found = await asyncio.gather(
        *(engines[partition].submit_many([commands.ReadStock(*name) for name in some])
          for partition, some in names.items())
    )  # fmt: skip
    return {
        name: outcome if isinstance(outcome, Refused) else outcome.value
        for some, outcomes in zip(names.values(), found, strict=True)
        for name, outcome in zip(some, outcomes, strict=True)
    }


def _shortage(command: commands.Hold, stocks: Mapping[_Name, Stock]) -> Refusal | None:
    wanted: dict[_Name, int] = {}
    for line in command.lines:
        wanted[line.sku, line.pool] = wanted.get((line.sku, line.pool), 0) + line.quantity
    short = [(*name, units, stocks[name].sellable) for name, units in wanted.items() if stocks[name].sellable < units]
    return ("insufficient-stock", {"lines": short}) if short else None


def _invalid(field: str, message: str) -> Refusal:
    return Reason.INVALID_REQUEST.value, {"errors": [{"field": field, "message": message}]}
