"""The count of a drop, from answers written by hand."""

from loadtests.tally import Answer, percentile, tally

NEVER = 10_000.0


def hold(key: str, at: float, *, hold: str | None = None, quantity: int = 1, expires: float = NEVER) -> Answer:
    """An accepted hold, answered at `at`, a tenth of a second after it was asked for."""
    return Answer(1, "hold", key, at - 0.1, at, 201, None, hold or f"hld_{key}", quantity, expires)


def refused(key: str, at: float) -> Answer:
    return Answer(1, "hold", key, at - 0.1, at, 409, "insufficient-stock", None, 1, None)


def follow(verb: str, key: str, at: float, status: int = 200) -> Answer:
    return Answer(1, verb, key, at - 0.1, at, status, None, f"hld_{key}", 1, None)


def test_units_promised_at_one_instant_beyond_those_there_are_count_as_oversold() -> None:
    """Three holds alive together on two units are one unit too many."""
    assert tally([hold("a", 1), hold("b", 2), hold("c", 3)], units=2).oversold_units == 1


def test_a_unit_that_came_back_by_its_deadline_may_be_promised_again() -> None:
    """The next hold begins after the deadline of the one before."""
    assert tally([hold("a", 1, expires=2), hold("b", 2.5)], units=1).oversold_units == 0


def test_a_payment_before_the_deadline_keeps_the_unit_promised_for_ever() -> None:
    """A hold that was paid in time still counts when its deadline has passed."""
    answers = [hold("a", 1, expires=2), follow("commit", "a", 1.5), hold("b", 3)]
    counted = tally(answers, units=1)
    assert (counted.oversold_units, counted.sold_units) == (1, 1)


def test_a_payment_accepted_after_the_deadline_promises_only_from_then_on() -> None:
    """Sold at 5 after it lapsed at 2: whoever held the unit from 2 to 4 was not oversold, the one from 6 on was."""
    lapsed = [hold("a", 1, expires=2), follow("commit", "a", 5)]
    assert tally([*lapsed, hold("b", 2.5, expires=4)], units=1).oversold_units == 0
    assert tally([*lapsed, hold("c", 6)], units=1).oversold_units == 1


def test_a_released_unit_is_free_from_the_moment_the_release_was_sent() -> None:
    """Another buyer may have it before the release was answered."""
    answers = [hold("a", 1), follow("release", "a", 3.1), hold("b", 3.05)]
    assert tally(answers, units=1).oversold_units == 0


def test_two_holds_under_one_key_are_a_duplicate_and_the_same_hold_told_twice_is_not() -> None:
    """What counts is the hold's id."""
    assert tally([hold("a", 1), hold("a", 2)], units=5).duplicate_holds == 0
    assert tally([hold("a", 1), hold("a", 2, hold="hld_other")], units=5).duplicate_holds == 1


def test_keys_are_counted_once_however_often_they_were_sent() -> None:
    """Accepted wins over refused, and a key without a decision is a failure."""
    lost = Answer(3, "hold", "d", 1, 2, 0, None, None, 1, None)
    counted = tally([hold("a", 1), hold("a", 2), refused("b", 1), refused("b", 2), lost], units=5)
    assert (counted.offered, counted.accepted, counted.refused, counted.failed) == (3, 1, 1, 1)


def test_the_rate_is_that_of_the_rush_and_not_of_the_stragglers() -> None:
    """Two units gone after one second: two holds a second, although a third followed much later."""
    answers = [hold("a", 0.5), hold("b", 0.9), hold("c", 100)]
    assert round(tally(answers, units=2).accepted_per_second, 3) == round(2 / 0.5, 3)


def test_what_is_still_held_at_the_end_is_told_from_what_has_lapsed() -> None:
    """The drop ends with its last answer."""
    counted = tally([hold("a", 1, expires=5), hold("b", 1), refused("c", 9)], units=3)
    assert (counted.held_units, counted.sold_units) == (1, 0)


def test_a_drop_nobody_came_to_is_counted_too() -> None:
    """No answers, no division by zero."""
    assert tally([], units=3).offered == 0


def test_percentiles_take_the_nearest_rank() -> None:
    """Of 1 to 100, half are at most 51 by this rule, and the 99th in the hundred is 100."""
    values = [float(n) for n in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (51.0, 100.0)
