"""A whole drop in small: Locust, `flashhold up` and a baseline, the count, the ledger, the picture."""

from pathlib import Path

import pytest
from loadtests.picture import draw_drop
from loadtests.tally import Answer, tally
from rich.console import Console

from loadtests import drop, ledger_check

SMALL = drop.Size(units=20, buyers=100, devices=20, seed=1)


def report(designs: list[str]) -> drop.Report:
    told = drop.Report(SMALL, Console(quiet=True))
    drop.run(SMALL, designs, told)
    return told


@pytest.mark.slow
def test_a_small_drop_at_flashhold_sells_every_unit_once() -> None:
    """Twenty units, a hundred buyers with all their habits: the count, the ledger and the audit agree."""
    told = report([drop.FLASHHOLD])
    assert told.failures() == []
    assert told.finding is not None
    assert told.finding.sold_units + told.finding.held_units == 20
    counted = told.results[0].tally
    assert counted.offered == counted.accepted + counted.refused
    assert (counted.oversold_units, counted.duplicate_holds) == (0, 0)


@pytest.mark.slow
def test_a_small_drop_at_a_careful_baseline_is_counted_the_same_way() -> None:
    """The same crowd at the conditional update: correct as well, and in the table."""
    told = report(["conditional-update"])
    counted = told.results[0].tally
    assert (counted.oversold_units, counted.duplicate_holds) == (0, 0)
    assert counted.sold_units + counted.held_units == 20
    assert told.table().row_count == 1


def result(name: str, answers: list[Answer], units: int) -> drop.Result:
    return drop.Result(name, "disk", tally(answers, units), answers)


def accepted(key: str, at: float) -> Answer:
    return Answer(1, "hold", key, at - 0.1, at, 201, None, f"hld_{key}", 1, 1e9)


def test_a_drop_fails_for_each_thing_it_was_to_show() -> None:
    """Oversold at FlashHold, unsold at FlashHold, a naive design that was not caught, a ledger that differs."""
    told = drop.Report(drop.Size(1, 2, 1, 1), Console(quiet=True))
    told.results = [result(drop.FLASHHOLD, [accepted("a", 1), accepted("b", 2)], 1)]
    assert any("1 units oversold" in sentence for sentence in told.failures())
    told.results = [result(drop.FLASHHOLD, [accepted("a", 1)], 2)]
    assert any("of 2 units" in sentence for sentence in told.failures())
    told.results = [result(drop.NAIVE, [accepted("a", 1)], 1)]
    assert any("not seen to oversell" in sentence for sentence in told.failures())
    told.results = []
    told.finding = ledger_check.Finding(0, 0, 0, 0, 1, ["the audit found something"])
    assert told.failures() == ["the audit found something"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """An SVG with both panels' titles."""
    answers = [accepted("a", 1), accepted("b", 2)]
    draw_drop(tmp_path / "drop.svg", [("one", answers, tally(answers, 1))], 1)
    drawn = (tmp_path / "drop.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "Units promised to buyers" in drawn
