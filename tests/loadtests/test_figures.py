"""The table's arithmetic."""

import pytest
from loadtests.bench.figures import at_least, at_most, markdown, ratio


def test_a_ratio_is_the_median_of_its_pairs() -> None:
    """One pair from a slow second does not move it."""
    found = ratio([10, 10, 1], [5, 5, 5])
    assert (found.quotient, found.above, found.below) == (2, 10, 5)


def test_pairs_must_be_whole() -> None:
    """A side that was measured less often is a mistake, not a shorter list."""
    with pytest.raises(ValueError):
        ratio([1, 2], [1])


def test_bars_bound_from_their_side_and_only_where_there_is_one() -> None:
    """The bar itself passes."""
    assert at_least("x", 2.0, 2.0, "disk", "s").passed is True
    assert at_least("x", 1.99, 2.0, "disk", "s").passed is False
    assert at_most("x", 300, 300, "disk", "s").passed is True
    assert at_most("x", 301, 300, "disk", "s").passed is False
    assert at_most("x", 301, None, "disk", "s").passed is None


def test_the_table_for_documents_says_verdict_bar_and_machine() -> None:
    """One row a figure, with what it was computed from."""
    drawn = markdown([at_most("bytes", 301, 300, "disk", "Redis", live_holds=1_000)], "a machine")
    assert "| bytes | 301 | ≤ 300 | FAIL | disk | Redis | live holds 1,000 |" in drawn
    assert drawn.endswith("Machine: a machine\n")
