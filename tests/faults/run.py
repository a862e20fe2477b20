"""Breaks a running FlashHold again and again for some minutes, and says what was lost.

    make faults MINUTES=10
    make faults ARGS="--only kill-redis --seed 1234 --rounds 1"

Each round is a fresh deployment; its seed is printed and repeats what was asked and when it was broken. Exit status: 0
nothing was found, 1 a violation, 2 usage. The histories of failed rounds stay in reports/faults/.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.faults.report import rows, table, told
from tests.faults.scenarios import SCENARIOS
from tests.faults.trial import Outcome, Scenario, carry_out

REPORTS = Path(__file__).resolve().parents[2] / "reports" / "faults"


def main() -> None:
    """Read the command line, run, report."""
    options = _options()
    console = Console(stderr=options.json)
    chosen = [one for one in SCENARIOS if not options.only or one.name in options.only]
    outcomes = asyncio.run(_run(chosen, options, console))
    made = rows(chosen, outcomes)
    if options.json:
        violations = [sentence for outcome in outcomes for sentence in outcome.violations]
        print(json.dumps({"clean": not violations, "rows": made, "violations": violations[:100]}))
    else:
        console.print(table(made))
    sys.exit(1 if any(outcome.violations for outcome in outcomes) else 0)


def _options() -> argparse.Namespace:
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no round that would end later (10)")
    parser.add_argument("--only", action="append", choices=[s.name for s in SCENARIOS], metavar="NAME", help=names)
    parser.add_argument("--seed", type=int, help="of the first round; the others count on from it")
    parser.add_argument("--trials", type=int, help="how often to break something in a round")
    parser.add_argument("--rounds", type=int, help="stop after so many rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser.parse_args()


async def _run(chosen: list[Scenario], options: argparse.Namespace, console: Console) -> list[Outcome]:
    began = time.monotonic()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    outcomes: list[Outcome] = []
    while options.rounds is None or len(outcomes) < options.rounds:
        left_s = options.minutes * 60 - (time.monotonic() - began)
        scenario = _next(chosen, outcomes, left_s if outcomes else None)
        if scenario is None:
            break
        outcome = await carry_out(scenario, seed + len(outcomes), REPORTS, options.trials)
        told(console, outcome)
        outcomes.append(outcome)
    return outcomes


def _next(chosen: list[Scenario], outcomes: list[Outcome], left_s: float | None) -> Scenario | None:
    """The one that is furthest from its number of trials, among those that still fit. None: none fits."""

    def share(scenario: Scenario) -> float:
        mine = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
        if any(outcome.skipped for outcome in mine):
            return float("inf")
        # A round that proved nothing counts a little too, or it would be tried for ever.
        return sum(outcome.trials for outcome in mine) / scenario.target + 0.01 * len(mine)

    fitting = [s for s in chosen if (left_s is None or s.seconds < left_s) and share(s) < float("inf")]
    return min(fitting, key=share, default=None)


if __name__ == "__main__":
    main()
