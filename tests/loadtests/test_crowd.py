"""The crowd: always the same, and never only polite people."""

from loadtests.crowd import Habit, crowd


def test_the_same_seed_brings_the_same_people() -> None:
    """And another seed brings others."""
    assert crowd(500, seed=7) == crowd(500, seed=7)
    assert crowd(500, seed=7) != crowd(500, seed=8)


def test_every_habit_is_there_in_a_small_crowd() -> None:
    """A drop of a hundred buyers has double clicks, abandoned carts and late payments."""
    assert {buyer.habit for buyer in crowd(100, seed=1)} == set(Habit)


def test_latecomers_come_last_and_buy_what_the_others_left() -> None:
    """They take one unit each and pay, so that every unit that comes back is sold."""
    people = crowd(1000, seed=1)
    late = [buyer for buyer in people if buyer.latecomer]
    assert people[-len(late) :] == late
    assert {(buyer.quantity, buyer.habit, buyer.returns) for buyer in late} == {(1, Habit.PAYS, 0)}
