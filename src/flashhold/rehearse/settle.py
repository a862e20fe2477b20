"""Before a run: what is there. After it: is what the file says, what Redis says and what the ledger says the same?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from flashhold.domain.entries import BUCKETS
from flashhold.rehearse.client import Caller, together
from flashhold.rehearse.expected import Before, Expected
from flashhold.rehearse.ledger import Fold
from flashhold.rehearse.plan import Cart, Plan
from flashhold.rehearse.player import Played
from flashhold.rehearse.requests import Requests

IN_REDIS = ("available", "held", "committed")
"""The buckets that a strong read shows; the ledger shows all six."""


class Strong(msgspec.Struct):
    """A strong read: one pool of one SKU as Redis has it."""

    on_hand: int
    held: int
    committed: int
    safety_stock: int
    oversell_allowance: int
    partition: str
    epoch: int
    seq: int

    def bucket(self, name: str) -> int:
        if name == "available":
            return self.on_hand - self.held - self.committed
        return self.held if name == "held" else self.committed


_strong = msgspec.json.Decoder(Strong)


class Difference(NamedTuple):
    """One bucket of one SKU on which the three do not agree, in units; None where Redis does not show the bucket."""

    sku: str
    bucket: str
    file: int
    redis: int | None
    ledger: int


@dataclass
class Settled:
    """The verdict. `differences` are figures, `findings` sentences about anything else that is not as it should be."""

    differences: list[Difference] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    finding_count: int = 0
    oversold_units: int = 0
    compared: int = 0
    """Figures compared."""
    totals: dict[str, tuple[int, int | None, int]] = field(default_factory=dict)
    """Bucket → units over all SKUs: file, Redis, ledger; as changes since before the run."""
    others: list[str] = field(default_factory=list)
    """Ledger entries that somebody else caused on these SKUs during the run."""

    @property
    def count(self) -> int:
        return len(self.differences) + self.finding_count


async def read_stock(callers: list[Caller], requests: Requests, skus: list[str]) -> dict[str, Strong]:
    """Strong reads of all `skus`; the ones that the system does not know are absent."""
    found: dict[str, Strong] = {}
    waiting = iter(skus)

    async def read(caller: Caller) -> None:
        for sku in waiting:
            answer = await caller.call("stock", requests.stock(sku))
            if answer.status == 200:
                found[sku] = _strong.decode(answer.body)
            elif answer.status != 404:
                raise ValueError(f"GET /v1/skus/… answered {answer.status} for {sku!r}: {answer.body[:200]!r}")

    await together(read(caller) for caller in callers)
    return found


def places_of(stock: dict[str, Strong]) -> dict[str, tuple[int, int]]:
    """The latest (epoch, seq) of each partition that the reads have seen."""
    places: dict[str, tuple[int, int]] = {}
    for strong in stock.values():
        places[strong.partition] = max(places.get(strong.partition, (0, 0)), (strong.epoch, strong.seq))
    return places


async def before_run(
    callers: list[Caller], requests: Requests, skus: list[str], fold: Fold, on_page: Callable[[], None]
) -> dict[str, Before]:
    """What was there before this run ever began: on a run taken up again, without its own earlier entries."""
    stock = await read_stock(callers, requests, skus)
    await fold.reach(callers[0], places_of(stock), on_page)
    fold.entries_of_others.clear()
    fold.oversold_units = 0
    fold.slack = {sku: strong.oversell_allowance - strong.safety_stock for sku, strong in stock.items()}
    return {
        sku: Before(
            tuple(fold.by_others[sku]),
            strong.safety_stock,
            strong.oversell_allowance,
            known=any(fold.by_others[sku]) or not any(fold.buckets[sku]),
        )
        for sku, strong in stock.items()
    }


async def after_run(
    callers: list[Caller], requests: Requests, fold: Fold, played: Played, on_page: Callable[[], None]
) -> dict[str, Strong]:
    """Wait until the ledger has everything that was acknowledged, then read Redis, and the ledger up to there."""
    await fold.reach(callers[0], played.places, on_page)
    stock = await read_stock(callers, requests, sorted(fold.buckets))
    await fold.reach(callers[0], places_of(stock), on_page)
    return stock


def compare(
    plan: Plan, before: dict[str, Before], expected: Expected, *, played: Played, fold: Fold, stock: dict[str, Strong]
) -> Settled:
    """File = Redis = ledger, for every SKU and bucket, and every answer as the file says it must be."""
    settled = Settled(oversold_units=fold.oversold_units, others=list(fold.entries_of_others))
    totals = {bucket: [0, 0, 0] for bucket in BUCKETS}
    for sku in plan.skus:
        start = before.get(sku, Before()).buckets
        strong = stock.get(sku)
        for index, bucket in enumerate(BUCKETS):
            file, ledger = expected.buckets[sku][index], fold.buckets[sku][index]
            redis = None
            if bucket in IN_REDIS:
                redis = strong.bucket(bucket) if strong else 0
            settled.compared += 1
            if file != ledger or redis not in (None, file):
                settled.differences.append(Difference(sku, bucket, file, redis, ledger))
            for column, value in enumerate((file, redis, ledger)):
                totals[bucket][column] += 0 if value is None else value - start[index]
    settled.totals = {b: (f, r if b in IN_REDIS else None, led) for b, (f, r, led) in totals.items()}
    settled.findings = [*_answers(plan, expected, played), *_entries(played, fold), *fold.findings]
    settled.finding_count = len(settled.findings) + played.unexpected_count - len(played.unexpected)
    return settled


def _answers(plan: Plan, expected: Expected, played: Played) -> Iterator[str]:
    yield from played.unexpected
    for index, part in sorted(expected.refused_holds ^ played.refused_holds):
        cart = plan.events[index]
        assert isinstance(cart, Cart)
        was, must = ("refused", "granted") if (index, part) in played.refused_holds else ("granted", "refused")
        yield f"order {cart.order}, part {part + 1}: {was}, but the file says {must}"
    for row in sorted(expected.refused_movements ^ played.refused_movements):
        was, must = ("refused", "accepted") if row in played.refused_movements else ("accepted", "refused")
        yield f"row {row}: the movement was {was}, but the file says {must}"
    for what in sorted(expected.units.keys() | played.units.keys()):
        if (should := expected.units.get(what, 0)) != (did := played.units[what]):
            yield f"{did} units {what} according to the answers, {should} according to the file"


def _entries(played: Played, fold: Fold) -> Iterator[str]:
    """Every acknowledged command has one entry. Nobody is told of an expiry, and a run taken up again may have some."""
    for kind in sorted((played.acknowledged.keys() | fold.own_kinds.keys()) - {"expire"}):
        if (told := played.acknowledged[kind]) != (kept := fold.own_kinds[kind]):
            yield f"{told} acknowledged commands of kind {kind}, {kept} entries in the ledger"
