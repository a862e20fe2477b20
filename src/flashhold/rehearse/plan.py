"""Records → what will be played: carts (hold, commit, ship) and movements, in file order, and the opening stock."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from flashhold.domain.limits import LINES_MAX, QUANTITY_MAX, TEXT_LENGTH_MAX
from flashhold.domain.model import Line
from flashhold.rehearse.reader import Record, RowClass

NO_REASON = "no reason recorded"

_DAMAGE_WORDS = re.compile(
    r"damag|dagamed|brok|breakage|smash|crush|crack|\bwet\b|water|\brust|mould|fault|unsale?able|destroy"
    r"|th?rown? away|smudge",
    re.IGNORECASE,
)
"""Words by which a shop's free text says that goods are spoilt; whatever else is written off is a count correction."""


class Cart(NamedTuple):
    """One order. `holds`: its lines, at most 100 distinct SKUs each; every hold is all or nothing by itself."""

    order: str
    at_s: float | None
    buyer: str | None
    holds: tuple[tuple[Line, ...], ...]
    abandoned: bool

    @property
    def requests(self) -> int:
        """How many requests it takes when nothing is refused."""
        shipments = 0 if self.abandoned else sum(map(len, self.holds))
        return 2 * len(self.holds) + shipments


class Movement(NamedTuple):
    """One stock movement; `quantity` is signed only for `adjustment`. `row` makes its key."""

    row: int
    kind: str
    sku: str
    quantity: int
    at_s: float | None
    reason: str | None
    reference: str | None


Event = Cart | Movement


@dataclass
class Plan:
    """What a rehearsal plays. `opening`: units received for each SKU before the first event."""

    events: list[Event]
    opening: dict[str, int]
    ordered: bool
    """True when stock may run out: then the outcome depends on the order, and the file's order is kept."""
    rows: int
    rows_by_class: dict[RowClass, int]
    stock_ratio: float
    brings_stock: bool
    skus: list[str] = field(default_factory=list)

    @property
    def carts(self) -> Iterable[Cart]:
        return (event for event in self.events if isinstance(event, Cart))

    @property
    def requests(self) -> int:
        """Mutating requests when nothing is refused, opening receipts included."""
        return len(self.opening) + sum(e.requests if isinstance(e, Cart) else 1 for e in self.events)


def build(records: Iterable[Record], stock_ratio: float = 1.0) -> Plan:
    """Group `records` into a plan. `stock_ratio` below 1 makes the opening stock short by that much.

    Raises ValueError when the ratio is not positive, is given for a file that brings its own stock, or when a SKU
    needs more units than one receipt can bring.
    """
    if not stock_ratio > 0:
        raise ValueError("the stock ratio must be above 0")
    events: list[Event | _OpenCart] = []
    open_carts: dict[tuple[str, RowClass], _OpenCart] = {}
    classes: Counter[RowClass] = Counter()
    for record in records:
        classes[record.row_class] += 1
        if record.row_class in (RowClass.SALE, RowClass.ABANDONED):
            name = (record.order, record.row_class)
            cart = open_carts.get(name)
            if cart is None:
                cart = open_carts[name] = _OpenCart(record)
                events.append(cart)
            cart.add(record)
        elif (movement := _movement(record)) is not None:
            events.append(movement)
    finished: list[Event] = [e.close() if isinstance(e, _OpenCart) else e for e in events]
    brings_stock = classes[RowClass.RECEIPT] > 0
    if brings_stock and stock_ratio != 1:
        raise ValueError("a file with receipt rows brings its own stock: a stock ratio does not apply")
    demand = _demand(finished)
    opening = {} if brings_stock else _opening(demand, stock_ratio)
    if too_many := [sku for sku, units in opening.items() if units > QUANTITY_MAX]:
        raise ValueError(f"{too_many[0]!r} would need more than {QUANTITY_MAX} units")
    return Plan(
        events=finished,
        opening=opening,
        ordered=brings_stock or stock_ratio < 1,
        rows=sum(classes.values()),
        rows_by_class={row_class: classes[row_class] for row_class in RowClass},
        stock_ratio=stock_ratio,
        brings_stock=brings_stock,
        skus=sorted(demand),
    )


class _OpenCart:
    """A cart that may still get rows: an order's rows need not stand together in the file."""

    def __init__(self, first: Record) -> None:
        self._first = first
        self._quantities: dict[str, int] = {}

    def add(self, record: Record) -> None:
        self._quantities[record.sku] = self._quantities.get(record.sku, 0) + record.quantity

    def close(self) -> Cart:
        lines = [Line(sku, quantity) for sku, quantity in self._quantities.items()]
        holds = tuple(tuple(lines[i : i + LINES_MAX]) for i in range(0, len(lines), LINES_MAX))
        first = self._first
        return Cart(first.order, first.at_s, first.buyer, holds, first.row_class is RowClass.ABANDONED)


def _movement(record: Record) -> Movement | None:
    quantity, reason = record.quantity, _reason(record.reason)
    match record.row_class:
        case RowClass.RETURN:
            kind, stated = "return", None
        case RowClass.RECEIPT:
            kind, stated = "receipt", None
        case RowClass.FIND:
            kind, stated = "adjustment", reason
        case RowClass.WRITE_OFF:
            damaged = record.damaged if record.damaged is not None else is_damage(record.reason)
            kind, stated = ("damage", reason) if damaged else ("adjustment", reason)
            quantity = quantity if damaged else -quantity
        case _:
            return None
    return Movement(record.row, kind, record.sku, quantity, record.at_s, stated, record.order or None)


def is_damage(text: str) -> bool:
    """Whether a write-off's free text says that the goods are spoilt."""
    return _DAMAGE_WORDS.search(text) is not None


def _reason(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text).strip()
    return printable[:TEXT_LENGTH_MAX] or NO_REASON


def _demand(events: Iterable[Event]) -> dict[str, int]:
    """Units that leave each SKU, returns and finds not set against them: enough in whatever order things arrive."""
    demand: dict[str, int] = {}
    for event in events:
        if isinstance(event, Cart):
            for hold in event.holds:
                for line in hold:
                    demand[line.sku] = demand.get(line.sku, 0) + line.quantity
        else:
            leaves = event.quantity if event.kind == "damage" else max(0, -event.quantity)
            demand[event.sku] = demand.get(event.sku, 0) + leaves
    return demand


def _opening(demand: dict[str, int], stock_ratio: float) -> dict[str, int]:
    """At least one unit of each SKU: only a receipt makes a SKU known, and a return needs a known one."""
    return {sku: max(1, math.floor(units * stock_ratio)) for sku, units in sorted(demand.items())}
