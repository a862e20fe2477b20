"""The drop, four times: at FlashHold and at three designs that a team would otherwise write.

    make drop UNITS=500 BUYERS=5000

Prints one table, draws `reports/drop.svg`, then asks FlashHold's ledger whether every buyer was told the truth.
Exit status 1 when a unit was oversold, a hold doubled, a unit left unsold, or the audit finds a difference.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from flashhold.embedded.servers import PostgresServer
from loadtests import flashhold_server, ledger_check, stores
from loadtests.machine import machine, sentence, wide_console
from loadtests.picture import draw_drop
from loadtests.tally import Answer, Tally, read_answers, tally

SKU = "drop {hot}: 🔥"
"""Every character in it is legal, and would break a careless key or URL."""

FLASHHOLD = "flashhold"
NAIVE = "read-then-write"
BASELINES = {
    NAIVE: "loadtests.baselines.read_then_write:app",
    "select-for-update": "loadtests.baselines.select_for_update:app",
    "conditional-update": "loadtests.baselines.conditional_update:app",
}
TITLES = {
    FLASHHOLD: "FlashHold",
    NAIVE: "read, then write",
    "select-for-update": "SELECT … FOR UPDATE",
    "conditional-update": "one conditional UPDATE",
}
_LOCUST_SECONDS_MAX = 300


class Size(NamedTuple):
    """How big a drop: units on sale, people who come, connections they come over."""

    units: int
    buyers: int
    devices: int
    seed: int


class Result(NamedTuple):
    """One drop at one design."""

    name: str
    durability: str
    tally: Tally
    answers: list[Answer]


def shop(url: str, token: str, size: Size, directory: Path) -> list[Answer]:
    """Send the crowd to a server; what it was told. Raises RuntimeError if Locust itself failed."""
    file = directory / "answers.jsonl"
    words = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless"]
    words += ["--users", str(size.devices), "--spawn-rate", str(size.devices), "--host", url]
    words += ["--run-time", f"{_LOCUST_SECONDS_MAX}s", "--only-summary", "--loglevel", "WARNING"]
    environment = {
        "DROP_SKU": SKU,
        "DROP_BUYERS": str(size.buyers),
        "DROP_SEED": str(size.seed),
        "DROP_TOKEN": token,
        "DROP_ANSWERS": str(file),
        "PYTHONPATH": str(stores.REPOSITORY),
    }
    ran = subprocess.run(
        words,
        env={**os.environ, **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=_LOCUST_SECONDS_MAX + 60,
    )
    # Status 1 only says that some requests failed, and those are counted by the tally.
    if ran.returncode not in (0, 1) or not file.exists():
        raise RuntimeError(f"Locust ended with {ran.returncode}:\n{ran.stdout[-1000:]}\n{ran.stderr[-3000:]}")
    return read_answers(file)


def drop_at_baseline(name: str, postgres: PostgresServer, size: Size, directory: Path) -> Result:
    """Run one baseline on a database of its own and send the crowd there."""
    home = directory / name.split(maxsplit=1)[0].lower().strip(",")
    home.mkdir()
    environment = {
        "BASELINE_DATABASE_URL": stores.new_database(postgres, name),
        "BASELINE_SKU": SKU,
        "BASELINE_UNITS": str(size.units),
    }
    with stores.web_app(BASELINES[name], home, environment) as url:
        answers = shop(url, "none", size, home)
    return Result(name, f"{stores.postgres_version(postgres)}, fsync", tally(answers, size.units), answers)


def drop_at_flashhold(size: Size, directory: Path) -> tuple[Result, ledger_check.Finding]:
    """Run `flashhold up`, send the crowd there, then hold what buyers were told against the ledger."""
    home = directory / "flashhold"
    home.mkdir()
    with flashhold_server.up(home) as server:
        server.receive(SKU, size.units)
        answers = shop(server.url, server.token, size, home)
        finding = ledger_check.check(server, SKU, size.units, answers)
        return Result(FLASHHOLD, server.durability(), tally(answers, size.units), answers), finding


def run(size: Size, designs: list[str], report: "Report") -> None:
    """Every design in turn, on a machine that does nothing else."""
    with tempfile.TemporaryDirectory(prefix="flashhold-drop-") as made, ExitStack() as stack:
        directory = Path(made)
        if FLASHHOLD in designs:
            result, report.finding = drop_at_flashhold(size, directory)
            report.add(result)
        wanted = [name for name in BASELINES if name in designs]
        if wanted:
            postgres = stack.enter_context(stores.postgres_server(directory))
            for name in wanted:
                report.add(drop_at_baseline(name, postgres, size, directory))


class Report:
    """What the run says at its end, to people and to machines."""

    def __init__(self, size: Size, console: Console) -> None:
        self.size = size
        self.console = console
        self.machine = machine()
        self.results: list[Result] = []
        self.finding: ledger_check.Finding | None = None

    def add(self, result: Result) -> None:
        self.results.append(result)
        self.console.print(
            f"{TITLES[result.name]}: {result.tally.accepted} accepted, {result.tally.oversold_units} oversold"
        )

    def failures(self) -> list[str]:
        """Sentences on what the drop was to show and did not."""
        said = list(self.finding.differences) if self.finding else []
        for result in self.results:
            counted = result.tally
            if result.name == NAIVE and not counted.oversold_units:
                said.append(f"{TITLES[NAIVE]}: was not seen to oversell; the drop was too gentle to show anything")
            if result.name != FLASHHOLD:
                continue
            if counted.oversold_units or counted.duplicate_holds:
                said.append(
                    f"FlashHold: {counted.oversold_units} units oversold, {counted.duplicate_holds} holds doubled"
                )
            if counted.sold_units + counted.held_units != counted.units:
                said.append(
                    f"FlashHold: {counted.sold_units} sold + {counted.held_units} held of {counted.units} units"
                )
            if counted.failed:
                said.append(f"FlashHold: {counted.failed} buyers never got an answer that decides")
        return said

    def as_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "size": self.size._asdict(),
            "designs": {r.name: {"durability": r.durability, **r.tally._asdict()} for r in self.results},
            "ledger": self.finding._asdict() if self.finding else None,
            "failures": self.failures(),
        }

    def table(self) -> Table:
        table = Table(title=f"{self.size.buyers} buyers, {self.size.units} units of one SKU", title_justify="left")
        table.add_column("design")
        columns = ("offered", "accepted", "refused", "accepted/s", "p50 ms", "p99 ms", "oversold units")
        for column in (*columns, "duplicate holds", "sold + held"):
            table.add_column(column, justify="right")
        table.add_column("acknowledged in")
        for name, durability, counted, _ in self.results:
            wrong = bool(counted.oversold_units or counted.duplicate_holds)
            table.add_row(
                TITLES[name],
                str(counted.offered),
                str(counted.accepted),
                str(counted.refused),
                f"{counted.accepted_per_second:,.0f}",
                f"{counted.p50_ms:.1f}",
                f"{counted.p99_ms:.1f}",
                str(counted.oversold_units),
                str(counted.duplicate_holds),
                f"{counted.sold_units} + {counted.held_units}",
                durability,
                style="red" if wrong else None,
            )
        return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--buyers", type=int, default=5000)
    parser.add_argument("--devices", type=int, default=200, help="connections that the crowd shares")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other people")
    parser.add_argument("--only", default="", help=f"comma-separated designs of {', '.join(TITLES)}")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
    parser.add_argument("--reports", type=Path, default=stores.REPOSITORY / "reports")
    options = parser.parse_args()
    known = list(TITLES)
    designs = [name.strip() for name in options.only.split(",")] if options.only else known
    if unknown := set(designs) - set(known):
        parser.error(f"no such design: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    console = wide_console(options.json)
    report = Report(Size(options.units, options.buyers, options.devices, options.seed), console)
    run(report.size, designs, report)
    options.reports.mkdir(parents=True, exist_ok=True)
    picture = options.reports / "drop.svg"
    draw_drop(picture, [(TITLES[r.name], r.answers, r.tally) for r in report.results], report.size.units)
    (options.reports / "drop.json").write_text(json.dumps(report.as_dict(), indent=2))
    if options.json:
        print(json.dumps(report.as_dict()))
    else:
        console.print(report.table())
        console.print(f"Machine: {sentence(report.machine)}")
        if report.finding:
            console.print(report.finding.sentence())
        console.print(f"Picture: {picture}")
    for failure in report.failures():
        console.print(f"[red]{failure}[/red]")
    return 1 if report.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
