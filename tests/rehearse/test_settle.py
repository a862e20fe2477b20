"""The comparison sees whatever one of the three says differently: each test plants one wrong thing."""

from pathlib import Path

import pytest

from flashhold.rehearse.client import Answer
from flashhold.rehearse.ledger import Entry, Fold, Posting
from flashhold.rehearse.plan import build
from flashhold.rehearse.reader import read
from flashhold.rehearse.settle import Difference
from tests.rehearse.runs import Outcome

pytestmark = pytest.mark.quick


@pytest.fixture
def outcome(small_file: Path) -> Outcome:
    """A run with short stock on which all agree."""
    return Outcome(build(read(small_file), 0.8))


def test_agreement(outcome: Outcome) -> None:
    """Nothing planted, nothing found; and there were figures and refusals to compare."""
    result = outcome.result()
    assert result.clean
    assert result.settled.compared == 6 * len(outcome.plan.skus)
    assert result.refused > 10


def test_a_unit_too_many_in_redis(outcome: Outcome) -> None:
    """One unit on hand that the file does not explain."""
    strong = outcome.stock["a:b"]
    strong.on_hand += 1
    there = outcome.expected.buckets["a:b"][1]
    result = outcome.result()
    assert result.settled.differences == [Difference("a:b", "available", there, there + 1, there)]
    assert not result.clean


@pytest.mark.parametrize("bucket", range(6))
def test_a_unit_too_few_in_the_ledger(outcome: Outcome, bucket: int) -> None:
    """Every bucket of the ledger is compared."""
    outcome.fold.buckets["café ☕"][bucket] -= 1
    assert outcome.result().settled.count == 1


def test_a_sku_that_redis_does_not_know(outcome: Outcome) -> None:
    """An absent SKU counts as zeros, and the file says otherwise."""
    del outcome.stock["sl/ash"]
    (difference,) = outcome.result().settled.differences
    assert (difference.sku, difference.redis) == ("sl/ash", 0)


def test_a_hold_that_should_have_been_refused(outcome: Outcome) -> None:
    """The answers are compared too, not only the figures."""
    index, part = next(iter(outcome.played.refused_holds))
    outcome.played.refused_holds.remove((index, part))
    (finding,) = outcome.result().settled.findings
    assert finding.endswith(f"part {part + 1}: granted, but the file says refused")


def test_a_movement_that_should_have_been_accepted(outcome: Outcome) -> None:
    """Likewise for the file's movements."""
    outcome.played.refused_movements.add(10**6)
    assert outcome.result().settled.findings == ["row 1000000: the movement was refused, but the file says accepted"]


def test_units_of_the_answers(outcome: Outcome) -> None:
    """The API's answers add up to the file's units."""
    outcome.played.units["committed"] -= 1
    (finding,) = outcome.result().settled.findings
    assert "units committed according to the answers" in finding


def test_acknowledged_but_not_in_the_ledger(outcome: Outcome) -> None:
    """Every acknowledged command has its entry."""
    outcome.played.acknowledged["commit"] += 1
    assert outcome.result().settled.findings == ["1 acknowledged commands of kind commit, 0 entries in the ledger"]


def test_surprises_are_counted_beyond_those_kept(outcome: Outcome) -> None:
    """A flood of unexpected answers is counted in full and listed in part."""
    for number in range(1000):
        outcome.played.surprise(f"hold {number}", Answer(500, b"oops"))
    settled = outcome.result().settled
    assert settled.count == 1000
    assert 0 < len(settled.findings) <= 100


def _entry(seq: int, kind: str, quantity: int, *, key: str | None = None, hold: str | None = None) -> Entry:
    """`quantity` units from the shelf to the carts (or, negative, back)."""
    shift = [Posting("a", "default", "available", -quantity), Posting("a", "default", "held", quantity)]
    return Entry("p00", 1, seq, kind, hold, key, shift)


def _fold(available: int) -> Fold:
    fold = Outcome(build([])).fold
    fold.buckets["a"] = [-available, available, 0, 0, 0, 0]
    fold.by_others["a"] = [0] * 6
    return fold


def test_oversold_units() -> None:
    """A hold that takes more than there is oversells by what is missing, and by no more than it took."""
    fold = _fold(5)
    fold.add(_entry(1, "hold", 5))
    assert fold.oversold_units == 0
    fold.add(_entry(2, "hold", 3))
    assert fold.oversold_units == 3
    fold.add(_entry(3, "release", -3))
    fold.add(_entry(4, "hold", 1))
    assert fold.oversold_units == 4


def test_allowance_and_safety_stock() -> None:
    """What a policy lets be promised beyond the stock is not oversold; what it keeps back is."""
    fold = _fold(5)
    fold.slack["a"] = 2
    fold.add(_entry(1, "hold", 7))
    assert fold.oversold_units == 0
    fold = _fold(5)
    fold.slack["a"] = -1
    fold.add(_entry(1, "hold", 5))
    assert fold.oversold_units == 1


def test_a_gap_and_a_key_with_two_entries() -> None:
    """A sequence with a hole and a command that took effect twice are findings."""
    fold = _fold(50)
    fold.add(_entry(1, "hold", 1, key="rehearse.run.x", hold="h1"))
    fold.add(_entry(3, "hold", 1, key="rehearse.run.x", hold="h2"))
    assert fold.findings == [
        "p00: entry 3 follows 1 in epoch 1",
        "key rehearse.run.x has two entries, the second at p00/1/3",
    ]


def test_own_and_others() -> None:
    """A run's entries are those under its keys and those on its holds; the rest are somebody else's."""
    fold = _fold(50)
    fold.add(_entry(1, "hold", 1, key="rehearse.run.x", hold="h1"))
    fold.add(_entry(2, "expire", -1, hold="h1"))
    assert fold.by_others["a"] == [0] * 6
    fold.add(_entry(3, "hold", 1, key="rehearse.another.x", hold="h2"))
    fold.add(_entry(4, "expire", -1, hold="h2"))
    fold.add(_entry(5, "hold", 2))
    assert fold.by_others["a"] == [0, -2, 2, 0, 0, 0]
    assert fold.own_kinds == {"hold": 1, "expire": 1}
    assert len(fold.entries_of_others) == 3


def test_other_pools_and_skus_are_not_ours() -> None:
    """Postings elsewhere change nothing here."""
    fold = _fold(5)
    elsewhere = [Posting("a", "eu", "available", -9), Posting("b", "default", "available", -9)]
    fold.add(Entry("p00", 1, 1, "hold", None, None, elsewhere))
    assert fold.buckets["a"] == [-5, 5, 0, 0, 0, 0]
    assert (fold.oversold_units, fold.entries_of_others) == (0, [])
