"""Who comes to a drop: a reproducible crowd of buyers with the habits that make drops hard."""

import random
from enum import StrEnum
from typing import NamedTuple


class Habit(StrEnum):
    """What a buyer does once the stock is asked for."""

    PAYS = "pays"
    DOUBLE_CLICKS = "double-clicks"  # two requests with one key in flight together, then pays
    RETRIES = "retries"  # asks again with the same key, as after a lost answer, then pays; repeats the payment too
    ABANDONS = "abandons"  # never comes back; the deadline has to free the units
    PAYS_LATE = "pays late"  # pays when the deadline has passed, and must be told so
    CHANGES_MIND = "changes mind"  # releases the hold


class Buyer(NamedTuple):
    """One person at the drop. `latecomer`: arrives when the abandoned carts are overdue, and pays at once."""

    number: int
    quantity: int
    habit: Habit
    returns: int
    """How often a refused buyer tries again, each time with a new key."""
    latecomer: bool


# Shares of a crowd; large enough that a drop of 100 buyers has some of each.
_HABITS = {
    Habit.PAYS: 0.52,
    Habit.DOUBLE_CLICKS: 0.15,
    Habit.RETRIES: 0.10,
    Habit.ABANDONS: 0.12,
    Habit.PAYS_LATE: 0.06,
    Habit.CHANGES_MIND: 0.05,
}
_LATECOMERS = 0.2
"""More than abandon, pay late or change their minds while stock lasts, so that every freed unit finds a buyer."""
_WANTS_TWO = 0.1
_COMES_BACK = 0.15

CART_SECONDS = 2
"""How long the carts that will be abandoned or paid late are held: short, or a drop would take minutes."""
PAYING_SECONDS = 600


def crowd(buyers: int, seed: int) -> list[Buyer]:
    """`buyers` people in the order of their arrival, the latecomers last; the same seed, the same people."""
    chance = random.Random(seed)
    latecomers = int(buyers * _LATECOMERS)
    people = []
    for number in range(buyers):
        latecomer = number >= buyers - latecomers
        habit = chance.choices(list(_HABITS), list(_HABITS.values()))[0]
        wants_two = chance.random() < _WANTS_TWO
        comes_back = chance.random() < _COMES_BACK
        people.append(
            Buyer(
                number,
                # A latecomer takes one unit: a last single unit must not go begging among people who want two.
                quantity=2 if wants_two and not latecomer else 1,
                habit=Habit.PAYS if latecomer else habit,
                returns=1 if comes_back and not latecomer else 0,
                latecomer=latecomer,
            )
        )
    return people
