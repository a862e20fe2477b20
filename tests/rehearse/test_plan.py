"""Records become carts and movements."""

import math
from pathlib import Path

import pytest

from flashhold.rehearse.plan import NO_REASON, Cart, Movement, Plan, build, is_damage
from flashhold.rehearse.reader import Record, RowClass, read
from tests.rehearse.small_shop import BIG_CART_LINES

pytestmark = pytest.mark.quick


def _row(row: int, row_class: RowClass, sku: str, quantity: int, order: str = "", *, reason: str = "") -> Record:
    return Record(row, row_class, order, sku, quantity, None, None, reason, None)


def _cart(plan: Plan, order: str) -> Cart:
    (cart,) = [cart for cart in plan.carts if cart.order == order]
    return cart


def test_repeats_add_up_and_rows_need_not_stand_together(small_file: Path) -> None:
    """One cart an invoice, one line a SKU."""
    plan = build(read(small_file))
    (lines,) = _cart(plan, "570000").holds
    assert [(line.sku, line.quantity) for line in lines] == [("85123A", 9), ("a:b", 1)]
    assert len({cart.order for cart in plan.carts}) == len(list(plan.carts))


def test_a_long_cart_becomes_several_holds(small_file: Path) -> None:
    """At most 100 lines a hold, none lost, none twice."""
    cart = _cart(build(read(small_file)), "570002")
    assert [len(lines) for lines in cart.holds] == [100, 100, BIG_CART_LINES - 200]
    assert len({line.sku for lines in cart.holds for line in lines}) == BIG_CART_LINES
    assert cart.requests == 3 + 3 + BIG_CART_LINES


def test_requests_are_counted(small_file: Path) -> None:
    """The number that the progress bar runs to: receipts, two a hold, one a shipped line, one a movement."""
    plan = build(read(small_file))
    lines = sum(len(hold) for cart in plan.carts for hold in cart.holds)
    holds = sum(len(cart.holds) for cart in plan.carts)
    movements = sum(isinstance(event, Movement) for event in plan.events)
    assert plan.requests == len(plan.opening) + 2 * holds + lines + movements


def test_movements() -> None:
    """Returns, write-offs by their words, finds; the sign only where the kind is an adjustment."""
    plan = build(
        [
            _row(1, RowClass.RETURN, "a", 3, "C1", reason="MUG"),
            _row(2, RowClass.WRITE_OFF, "a", 4, "7", reason="Thrown away-rusty"),
            _row(3, RowClass.WRITE_OFF, "a", 5, "8"),
            _row(4, RowClass.FIND, "a", 6, "9", reason="x" * 200),
            _row(5, RowClass.WRITE_OFF, "a", 7, reason="a\nb\x00"),
            _row(6, RowClass.NON_GOODS, "POST", 1, "9"),
        ]
    )
    movements = [event for event in plan.events if isinstance(event, Movement)]
    assert [(m.row, m.kind, m.quantity, m.reason, m.reference) for m in movements] == [
        (1, "return", 3, None, "C1"),
        (2, "damage", 4, "Thrown away-rusty", "7"),
        (3, "adjustment", -5, NO_REASON, "8"),
        (4, "adjustment", 6, "x" * 128, "9"),
        (5, "adjustment", -7, "a b", None),
    ]


@pytest.mark.parametrize(
    "text", ["damaged", "????damages????", "Dagamed", "wet?", "Breakages", "thrown away", "WET/MOULDY"]
)
def test_words_of_damage(text: str) -> None:
    """Free text that says that goods are spoilt."""
    assert is_damage(text)


@pytest.mark.parametrize(
    "text", ["", "check", "lost", "wrongly marked", "SWEETHEART MUG", "trusted count", "sold as set"]
)
def test_other_words(text: str) -> None:
    """Free text that says anything else."""
    assert not is_damage(text)


def test_opening_stock() -> None:
    """All that leaves, whatever comes back; at least one unit, because only a receipt makes a SKU known."""
    rows = [
        _row(1, RowClass.SALE, "a", 10, "1"),
        _row(2, RowClass.RETURN, "a", 10, "C1"),
        _row(3, RowClass.WRITE_OFF, "a", 3, reason="damaged"),
        _row(4, RowClass.WRITE_OFF, "a", 4, reason="lost"),
        _row(5, RowClass.FIND, "b", 5),
    ]
    assert build(rows).opening == {"a": 17, "b": 1}
    short = build(rows, 0.8)
    assert short.opening == {"a": math.floor(17 * 0.8), "b": 1}
    assert (build(rows).ordered, short.ordered) == (False, True)


def test_own_receipts() -> None:
    """A file that brings its stock gets none from us, keeps its order, and takes no ratio."""
    rows = [_row(1, RowClass.RECEIPT, "a", 5), _row(2, RowClass.SALE, "a", 6, "1")]
    plan = build(rows)
    assert (plan.opening, plan.ordered, plan.brings_stock) == ({}, True, True)
    with pytest.raises(ValueError, match="brings its own stock"):
        build(rows, 0.8)


def test_refused_plans() -> None:
    """No stock at all is no rehearsal; more than one receipt can carry is refused before anything is played."""
    with pytest.raises(ValueError, match="above 0"):
        build([], 0.0)
    with pytest.raises(ValueError, match="'a' would need more"):
        build([_row(n, RowClass.SALE, "a", 600_000_000, str(n)) for n in range(2)])


@pytest.mark.slow
def test_real_file(real_file: Path) -> None:
    """The UCI file as carts: those with more than 100 lines become several holds, nothing is lost on the way."""
    plan = build(read(real_file))
    assert plan.rows == sum(plan.rows_by_class.values()) == 541_909
    sold = sum(line.quantity for cart in plan.carts for hold in cart.holds for line in hold)
    assert sold == sum(r.quantity for r in read(real_file) if r.row_class is RowClass.SALE)
    assert all(1 <= len(hold) <= 100 for cart in plan.carts for hold in cart.holds)
    reasons = [e.reason for e in plan.events if isinstance(e, Movement) and e.reason is not None]
    assert all(1 <= len(reason) <= 128 and reason.isprintable() for reason in reasons)
