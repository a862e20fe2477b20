"""The figures that a rehearsal must end with, computed from the plan alone (and what was in stock before).

A slow, obvious shop: one SKU, one number, one event after the other. It knows nothing of batches, Redis or HTTP.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from flashhold.domain.entries import BUCKETS
from flashhold.rehearse.plan import Cart, Movement, Plan


class Before(NamedTuple):
    """One SKU before the run: its six buckets in the order of `BUCKETS`, and what its policy never or over-sells."""

    buckets: tuple[int, ...] = (0,) * len(BUCKETS)
    safety_stock: int = 0
    oversell_allowance: int = 0
    known: bool = False
    """Whether movements of the SKU were accepted before the run."""

    @property
    def sellable(self) -> int:
        return self.buckets[_AVAILABLE] - self.safety_stock + self.oversell_allowance


_OUTSIDE, _AVAILABLE, _HELD, _COMMITTED, _DAMAGED, _IN_TRANSIT = range(len(BUCKETS))


@dataclass
class Expected:
    """What must be there at the end. Units by what happened to them; buckets per SKU in the order of `BUCKETS`."""

    buckets: dict[str, list[int]]
    opening: dict[str, int]
    refused_holds: set[tuple[int, int]] = field(default_factory=set)
    """(index of the cart's event, part) of each hold that must be refused."""
    refused_movements: set[int] = field(default_factory=set)
    """Rows of write-offs larger than what is on hand."""
    units: dict[str, int] = field(default_factory=dict)
    refused_units: dict[str, int] = field(default_factory=dict)
    """Units asked for in refused holds, for each SKU that was short in one of them."""

    def count(self, what: str, units: int) -> None:
        self.units[what] = self.units.get(what, 0) + units


def expect(plan: Plan, before: dict[str, Before] | None = None) -> Expected:
    """Play the plan in the file's order. `before`: SKUs that were there already; absent ones start from nothing."""
    before = before or {}
    opening = opening_receipts(plan, before)
    shop = _Shop(plan, before, Expected(buckets={}, opening=opening))
    for sku, units in opening.items():
        shop.move("receipt", sku, units)
    for index, event in enumerate(plan.events):
        if isinstance(event, Cart):
            for part, lines in enumerate(event.holds):
                shop.order(event, index, part, {line.sku: line.quantity for line in lines})
        else:
            shop.movement(event)
    return shop.expected


def opening_receipts(plan: Plan, before: dict[str, Before]) -> dict[str, int]:
    """The plan's opening stock; where a SKU is already promised beyond its stock, that is made good first, unless
    scarcity is what is rehearsed."""
    if plan.ordered:
        return dict(plan.opening)
    return {sku: units + max(0, -before.get(sku, Before()).sellable) for sku, units in plan.opening.items()}


class _Shop:
    def __init__(self, plan: Plan, before: dict[str, Before], expected: Expected) -> None:
        self.expected = expected
        self._before = before
        self._known = {sku for sku, there in before.items() if there.known}
        for sku in plan.skus:
            expected.buckets[sku] = list(before.get(sku, Before()).buckets)

    def order(self, cart: Cart, index: int, part: int, lines: dict[str, int]) -> None:
        """All lines or none. What is sold is shipped at once, so it ends outside; an abandoned cart is given back."""
        short = [sku for sku, quantity in lines.items() if quantity > self._sellable(sku)]
        if short:
            self.expected.refused_holds.add((index, part))
            for sku in short:
                refused = self.expected.refused_units
                refused[sku] = refused.get(sku, 0) + lines[sku]
            return
        units = sum(lines.values())
        self.expected.count("held", units)
        if cart.abandoned:
            self.expected.count("released", units)
            return
        for sku, quantity in lines.items():
            self._shift(sku, _AVAILABLE, _OUTSIDE, quantity)
        self.expected.count("committed", units)
        self.expected.count("shipped", units)

    def movement(self, movement: Movement) -> None:
        leaves = movement.quantity if movement.kind == "damage" else -movement.quantity
        takes_away = movement.kind == "damage" or (movement.kind == "adjustment" and movement.quantity < 0)
        unknown = movement.kind != "receipt" and movement.sku not in self._known
        if unknown or (takes_away and leaves > self._on_hand(movement.sku)):
            self.expected.refused_movements.add(movement.row)
            return
        self.move(movement.kind, movement.sku, movement.quantity)

    def move(self, kind: str, sku: str, quantity: int) -> None:
        match kind:
            case "receipt":
                self._shift(sku, _OUTSIDE, _AVAILABLE, quantity)
                self._known.add(sku)
                self.expected.count("received", quantity)
            case "return":
                self._shift(sku, _OUTSIDE, _AVAILABLE, quantity)
                self.expected.count("returned", quantity)
            case "damage":
                self._shift(sku, _AVAILABLE, _DAMAGED, quantity)
                self.expected.count("damaged", quantity)
            case _:
                self._shift(sku, _OUTSIDE, _AVAILABLE, quantity)
                self.expected.count("adjusted_up" if quantity > 0 else "adjusted_down", abs(quantity))

    def _shift(self, sku: str, source: int, target: int, quantity: int) -> None:
        buckets = self.expected.buckets[sku]
        buckets[source] -= quantity
        buckets[target] += quantity

    def _sellable(self, sku: str) -> int:
        before = self._before.get(sku, Before())
        return self.expected.buckets[sku][_AVAILABLE] - before.safety_stock + before.oversell_allowance

    def _on_hand(self, sku: str) -> int:
        buckets = self.expected.buckets[sku]
        return buckets[_AVAILABLE] + buckets[_HELD] + buckets[_COMMITTED]
