"""A measured figure, the bar that it is held against, and the table of them."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table


class Figure(NamedTuple):
    """One line of the table. `bar` None: measured for the reader, held against nothing."""

    name: str
    measured: float
    bar: float | None
    at_most: bool
    """Whether the bar is an upper bound; else it is a lower one."""
    durability: str
    server: str
    raw: dict[str, float]
    """What the figure was computed from, each name with its unit."""

    @property
    def passed(self) -> bool | None:
        if self.bar is None:
            return None
        return self.measured <= self.bar if self.at_most else self.measured >= self.bar


class Ratio(NamedTuple):
    """A quotient of interleaved repetitions: the median of the pairs' quotients, with the medians of both sides."""

    quotient: float
    above: float
    below: float
    spread: float
    """Half the distance between the quotients' quartiles: how much to believe the second digit."""


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Of pairs measured one after the other, so that a slow minute of the machine slows both sides of a pair."""
    quotients = sorted(a / b for a, b in zip(above, below, strict=True))
    quarter = len(quotients) // 4
    spread = (quotients[-1 - quarter] - quotients[quarter]) / 2
    return Ratio(statistics.median(quotients), statistics.median(above), statistics.median(below), spread)


def at_least(name: str, measured: float, bar: float | None, durability: str, server: str, **raw: float) -> Figure:
    return Figure(name, measured, bar, False, durability, server, raw)


def at_most(name: str, measured: float, bar: float | None, durability: str, server: str, **raw: float) -> Figure:
    return Figure(name, measured, bar, True, durability, server, raw)


def as_dict(figure: Figure) -> dict[str, Any]:
    return {**figure._asdict(), "passed": figure.passed}


_COLUMNS = ("figure", "measured", "bar", "verdict", "level", "server", "from")


def table(figures: Sequence[Figure]) -> Table:
    """For people: verdicts first, and what each was computed from."""
    drawn = Table(title="FlashHold, measured", title_justify="left")
    for column in _COLUMNS:
        drawn.add_column(column, justify="right" if column in ("measured", "bar") else "left")
    for figure in figures:
        drawn.add_row(*_cells(figure), style="red" if figure.passed is False else None)
    return drawn


def markdown(figures: Sequence[Figure], machine: str) -> str:
    """The same for a document."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_cells, figures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + f"\nMachine: {machine}\n"


def _cells(figure: Figure) -> list[str]:
    bar = "" if figure.bar is None else f"{'≤' if figure.at_most else '≥'} {figure.bar:g}"
    verdict = {True: "pass", False: "FAIL", None: ""}[figure.passed]
    raw = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in figure.raw.items())
    return [figure.name, _number(figure.measured), bar, verdict, figure.durability, figure.server, raw]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
