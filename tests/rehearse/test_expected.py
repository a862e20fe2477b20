"""The figures that must come out, from the file alone."""

import random
from pathlib import Path

import pytest

from flashhold.rehearse.expected import Before, expect
from flashhold.rehearse.plan import Cart, build
from flashhold.rehearse.reader import EVENT_HEADER, read

pytestmark = pytest.mark.quick


def test_short_stock_by_hand(tmp_path: Path) -> None:
    """Ten units, worked out on paper: all-or-nothing carts, a return that helps the next, a write-off too large."""
    path = tmp_path / "events.csv"
    path.write_text(
        EVENT_HEADER
        + """
,receipt,,a,10,,
,receipt,,b,1,,
,sale,o1,a,6,,
,sale,o2,a,5,,
,sale,o2,b,1,,
,abandoned,o3,a,4,,
,return,o1,a,1,,
,sale,o4,a,5,,
,damage,,b,2,,dropped
,damage,,b,1,,dropped
,return,,never seen,1,,
,sale,o5,b,1,,
,adjustment,,a,3,,found
,sale,o6,a,3,,
,adjustment,,b,-1,,count
"""
    )
    plan = build(read(path))
    expected = expect(plan)
    refused = [plan.events[index] for index, _ in expected.refused_holds]
    assert sorted(cart.order for cart in refused if isinstance(cart, Cart)) == ["o2", "o5"]
    assert expected.refused_movements == {9, 11, 15}
    assert expected.buckets["a"] == [0, 0, 0, 0, 0, 0]
    assert expected.buckets["b"] == [-1, 0, 0, 0, 1, 0]
    assert expected.refused_units == {"a": 5, "b": 1}
    assert expected.units == {
        "received": 11, "held": 18, "committed": 14, "shipped": 14, "released": 4, "returned": 1, "damaged": 1,
        "adjusted_up": 3,
    }  # fmt: skip


def test_full_stock_refuses_nothing_in_any_order(small_file: Path) -> None:
    """That is what lets carts be played all at once: whatever comes first, the same figures come out."""
    plan = build(read(small_file))
    straight = expect(plan)
    for seed in range(20):
        random.Random(seed).shuffle(plan.events)
        shuffled = expect(plan)
        assert not shuffled.refused_holds
        assert not shuffled.refused_movements
        assert shuffled.buckets == straight.buckets


@pytest.mark.parametrize("ratio", [1.0, 0.8, 0.1])
def test_conservation(small_file: Path, ratio: float) -> None:
    """Units only move: every SKU's buckets sum to zero, and nothing is left held, committed or owed."""
    expected = expect(build(read(small_file), ratio))
    for outside, available, held, committed, damaged, in_transit in expected.buckets.values():
        assert outside + available + damaged == 0
        assert (held, committed, in_transit) == (0, 0, 0)
        assert available >= 0


def test_before(small_file: Path) -> None:
    """What was there before stays there, counts for what can be sold, and is made good where it was promised twice."""
    plan = build(read(small_file))
    before = {"a:b": Before((-7, 4, 2, 1, 0, 0), safety_stock=9, known=True)}
    with_it, without = expect(plan, before), expect(plan)
    assert with_it.opening["a:b"] == without.opening["a:b"] + 5
    grown = [after - at_first for after, at_first in zip(with_it.buckets["a:b"], without.buckets["a:b"], strict=True)]
    assert grown == [-12, 9, 2, 1, 0, 0]
    assert not with_it.refused_holds


@pytest.mark.slow
def test_real_file(real_file: Path) -> None:
    """The UCI file: nothing refused with full stock; with four fifths of it, the refusals that the rule gives."""
    records = list(read(real_file))
    full = expect(build(records))
    assert not full.refused_holds
    assert not full.refused_movements
    assert full.units["held"] == full.units["committed"] == full.units["shipped"]
    short = expect(build(records, 0.8))
    assert 0 < len(short.refused_holds) < 10_000
    assert min(buckets[1] for buckets in short.buckets.values()) >= 0
