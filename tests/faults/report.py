"""What a run of the suite has shown, as a table for people and as JSON for machines."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.trial import Outcome, Scenario


def rows(scenarios: Iterable[Scenario], outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row a scenario that was tried, its rounds added up."""
    made = []
    for scenario in scenarios:
        mine = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
        if not mine:
            continue
        recoveries = [outcome.recovery_s for outcome in mine if outcome.recovery_s is not None]
        skipped = [outcome.skipped for outcome in mine if outcome.skipped]
        made.append(
            {
                "scenario": scenario.name,
                "fault": scenario.fault,
                "trials": sum(outcome.trials for outcome in mine),
                "target": scenario.target,
                "requests": sum(outcome.requests for outcome in mine),
                "acknowledged": sum(outcome.acknowledged for outcome in mine),
                "unknown": sum(outcome.unknown for outcome in mine),
                "violations": sum(len(outcome.violations) for outcome in mine),
                "worst_recovery_s": round(max(recoveries), 2) if recoveries else None,
                "seconds": round(sum(outcome.seconds for outcome in mine)),
                "seeds": [outcome.seed for outcome in mine],
                "skipped": skipped[0] if skipped else None,
            }
        )
    return made


def table(made: list[dict[str, Any]]) -> Table:
    """The rows for a terminal."""
    columns = ("fault", "trials", "acknowledged", "unknown", "violations", "worst recovery s")
    shown = Table(*columns, title="What dies, and what is lost")
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in made:
        if row["skipped"] and not row["trials"]:
            shown.add_row(row["fault"], f"skipped: {row['skipped']}", "", "", "", "")
            continue
        style = "bold red" if row["violations"] else ""
        recovery = row["worst_recovery_s"]
        figures = (row["acknowledged"], row["unknown"], row["violations"])
        shown.add_row(
            row["fault"],
            f"{row['trials']:,} of {row['target']:,}",
            *(f"{figure:,}" for figure in figures),
            "" if recovery is None else f"{recovery:.1f}",
            style=style,
        )
    return shown


def told(console: Console, outcome: Outcome) -> None:
    """A round in one line, its notes and its first violations below it."""
    if outcome.skipped:
        console.print(f"{outcome.scenario} (seed {outcome.seed}): skipped, {outcome.skipped}", markup=False)
        return
    recovery = "" if outcome.recovery_s is None else f", worst recovery {outcome.recovery_s:.1f} s"
    found = f"{len(outcome.violations)} violations" if outcome.violations else "no violation"
    console.print(
        f"{outcome.scenario} (seed {outcome.seed}): {outcome.trials:,} trials, {outcome.requests:,} requests, "
        f"{outcome.acknowledged:,} acknowledged, {outcome.unknown:,} unknown: {found}{recovery} "
        f"({outcome.seconds:.0f} s)",
        markup=False,
        highlight=False,
    )
    for sentence in [*outcome.notes, *outcome.violations[:10]]:
        console.print(f"    {sentence}", markup=False, highlight=False)
    if outcome.violations:
        times = f"--trials {outcome.times} --rounds 1"
        replay = f"make faults ARGS='--only {outcome.scenario} --seed {outcome.seed} {times}'"
        console.print(f"    again: {replay}", markup=False, highlight=False)
